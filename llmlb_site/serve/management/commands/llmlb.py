"""`manage.py llmlb …`: hands over to llmlb_site/serve/cli. So does manage.py itself, sooner."""

from __future__ import annotations

import sys
from argparse import REMAINDER, ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from llmlb_site.serve.cli import main


class Command(BaseCommand):
    help = "The fleet in the terminal: status, nodes, models, keys. `llmlb --help` says more."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("arguments", nargs=REMAINDER)

    def handle(self, *args: Any, **options: Any) -> None:
        sys.exit(main(options["arguments"]))
