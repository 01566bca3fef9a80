#!/usr/bin/env python
"""Django's command line, and llmlb's: `python manage.py serve` is all that a user needs."""

import os
import sys


def main() -> None:
    if sys.argv[1:2] == ["node"]:  # needs neither settings nor a database, and starts in a tenth of the time
        from nodes.runtime.cli import main as node

        sys.exit(node(sys.argv[2:]))
    if sys.argv[1:2] == ["llmlb"]:  # needs little of Django, or nothing: see there
        from llmlb_site.serve.cli import main as llmlb

        sys.exit(llmlb(sys.argv[2:]))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmlb_site.settings")
    try:
        from django.core.exceptions import ImproperlyConfigured
        from django.core.management import execute_from_command_line
    except ImportError as error:
        sys.exit(f"llmlb: {error}. Run `make run`, or install requirements.txt into this Python first.")
    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        sys.exit(f"llmlb: {error}")


if __name__ == "__main__":
    main()
