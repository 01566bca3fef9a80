"""`manage.py node …`: the commands of a node, without Django and without a database.

Each command is a module here with `HELP`, `add_arguments(parser)` and `run(options) -> exit code`, imported only when
it is called. Exit codes (SPEC-669176b2): 0 done, 1 failed, 2 no node could be reached.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn

from nodes.runtime.cli.failures import CommandFailed
from nodes.runtime.config import BadSetting

# Command → its module, and what `node --help` says of it.
COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "serve": ("serve", "Serve the models of a directory."),
    "run": ("run", "Chat with a model of a running node."),
    "pull": ("pull", "Fetch a model."),
    "list": ("listing", "List the models, and why some cannot be executed."),
    "show": ("show", "Show all that is known of one model."),
    "rm": ("rm", "Delete a model."),
    "stop": ("stop", "Unload a model from a running node."),
    "ps": ("ps", "List the models that are loaded."),
}


class Parser(argparse.ArgumentParser):
    """argparse ends with 2 for a mistake in the arguments, which here says that no node could be reached."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(1, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str]) -> int:
    """Run one command. Returns its exit code."""
    parser = Parser(prog="manage.py node", description="A node of llmlb: the models of this machine.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (_, text) in COMMANDS.items():
        # Its arguments are read when its module is known to be needed: the others stay unimported.
        commands.add_parser(name, help=text, add_help=False)
    chosen, rest = parser.parse_known_args(arguments)
    module = importlib.import_module(f"nodes.runtime.cli.{COMMANDS[chosen.command][0]}")
    own = Parser(prog=f"manage.py node {chosen.command}", description=module.__doc__)
    module.add_arguments(own)
    options = own.parse_intermixed_args(rest)
    try:
        code: int = module.run(options)
        sys.stdout.flush()
    except BadSetting as error:
        print(f"node: {error}", file=sys.stderr)
        return 1
    except CommandFailed as error:
        print(f"node: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # who reads has seen enough: `node list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        return 0
    return code
