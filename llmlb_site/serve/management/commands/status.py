from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any, Final

import httpx
from django.conf import settings
from django.core.management.base import BaseCommand

from llmlb_site.serve.instance import Instance, port_lock_path, running
from llmlb_site.serve.listener import base_url

NOT_RUNNING: Final = 2
NOT_READY: Final = 1
READY: Final = frozenset({"ready", "degraded"})  # degraded: it serves, but a part beside the listener has died
TIMEOUT_SECONDS: Final = 3.0


class Command(BaseCommand):
    help = "Say whether llmlb runs on a port. Exit code 0: ready; 1: running, not ready; 2: not running."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=int, default=settings.LLMLB.port, help="its port (LLMLB_PORT)")
        parser.add_argument("--json", action="store_true", dest="as_json", help="for programs")

    def handle(self, *args: Any, port: int, as_json: bool, **options: Any) -> None:
        instance = running(port_lock_path(port))
        state = "not running" if instance is None else _state_of(instance)
        self.stdout.write(_as_json(instance, port, state) if as_json else _as_text(instance, port, state))
        if state not in READY:
            raise SystemExit(NOT_RUNNING if instance is None else NOT_READY)


def _state_of(instance: Instance) -> str:
    try:
        answer = httpx.get(f"{base_url(instance.host, instance.port)}/readyz", timeout=TIMEOUT_SECONDS, trust_env=False)
        return str(answer.json()["status"])
    except (httpx.HTTPError, ValueError, KeyError):
        return "not answering"


def _as_text(instance: Instance | None, port: int, state: str) -> str:
    if instance is None:
        return f"llmlb on port {port}: {state}."
    url = base_url(instance.host, instance.port)
    return f"llmlb on port {port}: {state}; pid {instance.pid}, since {instance.since()}, {url}/"


def _as_json(instance: Instance | None, port: int, state: str) -> str:
    if instance is None:
        return json.dumps({"port": port, "state": state})
    known = {"port": port, "state": state, "pid": instance.pid, "started_at": instance.started_at.isoformat()}
    return json.dumps({**known, "url": base_url(instance.host, instance.port)})
