"""Fetch a model: org/repository, org/repository:QUANTIZATION, a Hugging Face page, a .gguf file's or a manifest's URL.

What has arrived is kept when it breaks off: the same command goes on from there.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from nodes.runtime.cli import places
from nodes.runtime.cli.failures import CommandFailed
from nodes.runtime.cli.showing import Bar, print_json, size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", default="", help="what to fetch")
    parser.add_argument("--filename", default="", help="one file of the repository")
    parser.add_argument("--quantization", default="", help="such as Q4_K_M, where there are several")
    parser.add_argument("--revision", default="", help="a branch, tag or commit")
    parser.add_argument("--sha256", default="", help="the hash that a file from a URL must have")
    parser.add_argument("--manifest", type=Path, help="a manifest in a file")
    places.add_arguments(parser)


def run(options: argparse.Namespace) -> int:
    bar = Bar()

    def told(look: dict[str, Any]) -> None:
        note = "" if look["total_bytes"] else look["model"]
        bar.show(done=look["downloaded_bytes"], total=look["total_bytes"], speed=look["bytes_per_second"], note=note)

    try:
        last = places.place_of(options).pull(_wish(options), told)
        told(last)
    finally:
        bar.close()
    if options.as_json:
        print_json(last)
    elif last["status"] == "success":
        print(f"{last['model']} is here: {size(last['downloaded_bytes'])}.")
    if last["status"] != "success":
        raise CommandFailed(last["error"] or "the pull was cancelled")
    return 0


def _wish(options: argparse.Namespace) -> dict[str, Any]:
    """Raises: CommandFailed."""
    wish = {name: getattr(options, name) for name in ("model", "filename", "quantization", "revision", "sha256")}
    if options.manifest is None:
        if not options.model:
            raise CommandFailed("say which model, or give --manifest")
        return wish
    try:
        manifest = json.loads(options.manifest.read_text())
    except (OSError, ValueError) as error:
        raise CommandFailed(f"{options.manifest} cannot be read as a manifest") from error
    return {**wish, "manifest": manifest}
