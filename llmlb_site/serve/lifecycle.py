"""What a server tells the rest of the process as it comes up and goes down."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


async def _nothing() -> None:
    """For servers whose application is started through ASGI lifespan instead."""


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """Callbacks of one server, and how long it may take to leave.

    `drain_seconds`: how long running requests may go on after SIGTERM. `notice_seconds`: how long the listener stays
    open after SIGTERM while /readyz already says 503, so that a load balancer in front can see it. `client_seconds`:
    how long a client may make no progress, sending a request or reading an answer.
    """

    listening: Callable[[], None]
    draining: Callable[[], None]
    stop_beside: Callable[[], None]
    drain_seconds: float
    notice_seconds: float = 1.0
    client_seconds: float = 30.0
    start: Callable[[], Awaitable[None]] = _nothing
    stop: Callable[[], Awaitable[None]] = _nothing


async def until(*reached: Callable[[], bool]) -> None:
    """Returns when any condition holds. Polled: the servers' own sets of connections and tasks announce nothing."""
    while not any(condition() for condition in reached):  # noqa: ASYNC110
        await asyncio.sleep(0.05)
