"""List the models: which can be executed here, by which engine, and why the others cannot."""

from __future__ import annotations

import argparse

from nodes.runtime.cli.places import add_arguments, place_of
from nodes.runtime.cli.showing import print_json, print_table, size

__all__ = ["add_arguments", "run"]


def run(options: argparse.Namespace) -> int:
    models = place_of(options).models()
    if options.as_json:
        print_json({"models": models})
        return 0
    rows = [
        [
            model["id"],
            size(model["size_bytes"]),
            model["quantization"] or "-",
            model["engine"] or f"- {model['reason']}",
        ]
        for model in sorted(models, key=lambda model: (not model["executable"], model["id"]))
    ]
    if rows:
        print_table(["MODEL", "SIZE", "QUANT", "ENGINE"], rows)
    else:
        print("There are no models yet. `manage.py node pull org/repository` fetches one.")
    return 0
