"""Delete a model's files. A node that runs it stops its engine first."""

from __future__ import annotations

import argparse

from nodes.runtime.cli import places
from nodes.runtime.cli.showing import print_json, size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="its id, as `list` shows it")
    places.add_arguments(parser)


def run(options: argparse.Namespace) -> int:
    freed = places.place_of(options).remove(options.model)
    if options.as_json:
        print_json({"deleted": options.model.lower(), "freed_bytes": freed})
    else:
        print(f"{options.model.lower()} is deleted: {size(freed)} freed.")
    return 0
