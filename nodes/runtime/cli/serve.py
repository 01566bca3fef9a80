"""Serve the models of a directory with the engines of this machine."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from nodes.runtime.config import read_config
from nodes.runtime.serving.server import CannotServe, serve


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", type=Path, help="The directory (LLM_RUNTIME_MODELS_DIR).")
    parser.add_argument("--host", help="Address to listen on (LLM_RUNTIME_HOST).")
    parser.add_argument("--port", type=int, help="Port to listen on (LLM_RUNTIME_PORT).")


def run(options: argparse.Namespace) -> int:
    config = read_config()
    models_dir = options.models.expanduser().absolute() if options.models else config.models_dir
    config = replace(config, models_dir=models_dir, host=options.host or config.host, port=options.port or config.port)
    try:
        return serve(config)
    except CannotServe as error:
        print(f"node: {error}", file=sys.stderr)
        return 1
