"""List the models that are loaded on a running node."""

from __future__ import annotations

import argparse

from nodes.runtime.cli.places import add_node_arguments, node_of
from nodes.runtime.cli.showing import print_json, print_table, size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_node_arguments(parser)
    parser.add_argument("--json", action="store_true", dest="as_json", help="for scripts")


def run(options: argparse.Namespace) -> int:
    found = node_of(options).ask("GET", "/api/ps")
    if options.as_json:
        print_json(found)
        return 0
    rows = [
        [
            model["id"],
            model["engine"],
            model["state"],
            size(model["memory_bytes"]),
            f"{model['active_requests']}",
            f"{model['requests']}",
            (model["unload_at"] or "-")[:19],
        ]
        for model in found["models"]
    ]
    if rows:
        print_table(["MODEL", "ENGINE", "STATE", "MEMORY", "ACTIVE", "REQUESTS", "UNLOADED AT"], rows)
    else:
        print("No model is loaded.")
    return 0
