from __future__ import annotations

import os
import signal
import time
from argparse import ArgumentParser
from contextlib import suppress
from typing import Any, Final

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from llmlb_site.serve.instance import port_lock_path, running

NOT_RUNNING: Final = 2
# Beyond the drain time: for closing the listener, flushing the history and stopping the worker.
GRACE_SECONDS: Final = 20.0


class Command(BaseCommand):
    help = "Stop the llmlb of this user on a port: running requests may finish first. Exit code 2 if none runs."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=int, default=settings.LLMLB.port, help="its port (LLMLB_PORT)")

    def handle(self, *args: Any, port: int, **options: Any) -> None:
        path = port_lock_path(port)
        instance = running(path)
        if instance is None:
            raise CommandError(f"nothing of yours runs on port {port}.", returncode=NOT_RUNNING)
        with suppress(ProcessLookupError):
            os.kill(instance.pid, signal.SIGTERM)
        self.stdout.write(f"Stopping llmlb on port {port} (pid {instance.pid}) …")
        self.stdout.flush()
        deadline = time.monotonic() + settings.LLMLB.drain_seconds + GRACE_SECONDS
        while running(path) == instance:
            if time.monotonic() > deadline:
                raise CommandError(f"pid {instance.pid} has not stopped. `kill -9 {instance.pid}` ends it at once.")
            time.sleep(0.1)
        self.stdout.write("Stopped.")
