"""Whether anybody checks the nodes. Without a worker and a beat, requests go by what was true when they left."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from django.utils import timezone

from llmlb_site.lib import health
from nodes.models import Node

PART: Final = "node checks"  # its name in /readyz
LOOK_SECONDS: Final = 5.0
# Beat ticks once a second, so a check is begun this soon after it is due.
BEGUN_WITHIN: Final = timedelta(seconds=5)
# A worker that is replaced, and a beat that takes over from another (15 s), are no trouble yet.
PATIENCE_SECONDS: Final = 20.0


class Overdue:
    """`look` as often as you like; it reports to `health`. By the `clock`, in seconds, which nobody sets back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: float | None = None
        self._next_look = 0.0

    def look(self) -> None:
        """Raises: django.db.Error."""
        now = self._clock()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        if not Node.objects.filter(enabled=True, next_poll_at__lt=timezone.now() - BEGUN_WITHIN).exists():
            self._since = None
        elif self._since is None:
            self._since = now
        waited = now - self._since if self._since is not None else 0.0
        health.report(
            PART,
            ok=waited < PATIENCE_SECONDS,
            detail="nobody checks the nodes: a Celery worker and a beat must run" if waited else "",
        )

    def forget(self) -> None:
        health.forget(PART)
