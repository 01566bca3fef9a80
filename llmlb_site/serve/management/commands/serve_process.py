from __future__ import annotations

import logging
import os
import socket
import threading
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from llmlb_site.serve import gateway
from llmlb_site.serve.processes import READY, follow_parent
from routing.siblings import Siblings

log = logging.getLogger("llmlb.serve")


class Command(BaseCommand):
    help = "One gateway process of `serve --processes N`, which starts it; not for people."
    requires_system_checks: list[str] = []  # the parent has run them

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--sockets", required=True, help="descriptors of the listening sockets")
        parser.add_argument("--channel", type=int, required=True, help="descriptor of the parent's channel")
        parser.add_argument("--siblings", type=Path, required=True, help="directory that the processes share")
        parser.add_argument("--name", required=True, help="of this process in that directory")
        parser.add_argument("--server", choices=("uvicorn", "daphne"), default="uvicorn")

    def handle(
        self, *args: Any, sockets: str, channel: int, siblings: Path, name: str, server: str, **options: Any
    ) -> None:
        from llmlb_site.serve.prepare import CannotStart, prepare_database

        parent = socket.socket(fileno=channel)
        threading.Thread(target=follow_parent, args=(parent,), name="llmlb-parent", daemon=True).start()
        try:
            prepare_database()  # a process that is renewed may be of a newer version than its parent
        except CannotStart as error:
            raise CommandError(str(error)) from error

        def listening() -> None:
            parent.send(READY)
            log.info("listening", extra={"gateway": name, "pid": os.getpid()})

        gateway.run(
            [socket.socket(fileno=int(each)) for each in sockets.split(",")],
            server=server,
            listening=listening,
            siblings=Siblings(siblings, name),
        )
