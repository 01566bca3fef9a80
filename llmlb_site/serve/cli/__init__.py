"""`manage.py llmlb …`: the fleet in the terminal, for people and for scripts (SPEC-669176b2).

Of the llmlb of this machine it is read from the database, so that it needs no key and answers while the server is
down; of another one, with --url or LLMLB_URL, over its management API with LLMLB_API_KEY. Exit codes: 0 done, 1 failed,
2 nothing could be reached.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Final

from llmlb_site.serve.cli.source import Source
from nodes.runtime.cli.failures import CommandFailed

COMMANDS: Final = {
    "status": "Whether llmlb runs, and the fleet in numbers.",
    "nodes": "Every node: its state, type, models and latency.",
    "models": "Every model: where it runs, where it is excluded.",
    "keys": "Every API key: whose it is, and whether it works.",
}


def main(arguments: Sequence[str]) -> int:
    """Run one command. Returns its exit code."""
    parser = argparse.ArgumentParser(prog="manage.py llmlb", description="The fleet, seen from the terminal.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--json", action="store_true", dest="as_json", help="for scripts")
        command.add_argument("--url", default=os.environ.get("LLMLB_URL", ""), help="another llmlb (LLMLB_URL)")
    options = parser.parse_args(arguments)
    try:
        # Imported here: what it takes to read a database is not needed to ask another machine.
        if options.url:
            from llmlb_site.serve.cli.remote import Remote

            source: Source = Remote(options.url, os.environ.get("LLMLB_API_KEY", ""))
        else:
            from llmlb_site.serve.cli.local import Local

            source = Local()
        from llmlb_site.serve.cli.showing import show

        return show(options.command, source, as_json=options.as_json)
    except CommandFailed as error:
        print(f"llmlb: {error}", file=sys.stderr)
        return error.code
