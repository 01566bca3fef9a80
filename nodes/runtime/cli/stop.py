"""Unload a model from a running node: its engine stops, and gives its memory back."""

from __future__ import annotations

import argparse

from nodes.runtime.cli.places import add_node_arguments, node_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="its id, as `ps` shows it")
    add_node_arguments(parser)


def run(options: argparse.Namespace) -> int:
    answer = node_of(options).ask("POST", "/api/models/unload", {"model": options.model.lower()})
    print(f"{options.model.lower()} {'is unloaded' if answer['unloaded'] else 'was not loaded'}.")
    return 0
