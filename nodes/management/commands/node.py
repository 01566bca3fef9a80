"""`manage.py node …`: hands over to nodes/runtime/cli, which needs no Django. So does manage.py itself, sooner."""

from __future__ import annotations

import sys
from argparse import REMAINDER, ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from nodes.runtime.cli import main


class Command(BaseCommand):
    help = "A node of llmlb: serves the models of this machine. `node --help` lists its commands."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("arguments", nargs=REMAINDER)

    def handle(self, *args: Any, **options: Any) -> None:
        sys.exit(main(options["arguments"]))
