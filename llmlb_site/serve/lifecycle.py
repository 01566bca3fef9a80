"""What a server tells the rest of the process as it comes up and goes down."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

# Whoever was let in just before the listener closed has this long to ask.
FIRST_REQUEST_SECONDS: Final = 1.0


async def _nothing() -> None:
    """For servers whose application is started through ASGI lifespan instead."""


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """Callbacks of one server, and how long it may take to leave.

    Of a second signal, SIGINT alone hurries it: SIGTERM may come from a service manager and from the parent as well.

    `drain_seconds`: how long running requests may go on after the signal. `lame_duck_seconds`: for how much of that new
    requests are still taken while /readyz already says 503, so that a load balancer in front can see it.
    `client_seconds`: how long a client may make no progress, sending a request or reading an answer.
    """

    listening: Callable[[], None]
    draining: Callable[[], None]
    stop_beside: Callable[[], None]
    drain_seconds: float
    lame_duck_seconds: float = 1.0
    client_seconds: float = 30.0
    start: Callable[[], Awaitable[None]] = _nothing
    stop: Callable[[], Awaitable[None]] = _nothing


@dataclass(frozen=True, slots=True)
class Leaving:
    """When a server that was told to leave does what, by the monotonic clock."""

    closes_at: float
    hangs_up_at: float
    cuts_at: float

    @classmethod
    def after(cls, number: int, lifecycle: Lifecycle) -> Leaving:
        """At this signal, now. A person at the terminal (SIGINT) is no load balancer that must first read /readyz."""
        now = time.monotonic()
        cuts_at = now + lifecycle.drain_seconds
        if number == signal.SIGINT:
            return cls(now, now, cuts_at)
        closes_at = min(now + lifecycle.lame_duck_seconds, cuts_at)
        return cls(closes_at, min(closes_at + FIRST_REQUEST_SECONDS, cuts_at), cuts_at)

    def closes(self) -> bool:
        """The listener is to close."""
        return time.monotonic() >= self.closes_at

    def hangs_up(self) -> bool:
        """Connections that have asked nothing yet are to be closed."""
        return time.monotonic() >= self.hangs_up_at

    def cuts(self) -> bool:
        """What still runs is to be cut."""
        return time.monotonic() >= self.cuts_at


async def until(*reached: Callable[[], bool]) -> None:
    """Returns when any condition holds. Polled: the servers' own sets of connections and tasks announce nothing."""
    while not any(condition() for condition in reached):  # noqa: ASYNC110
        await asyncio.sleep(0.05)
