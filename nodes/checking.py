"""One check of one node: its model list, over two independent connections where the first is slow."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.utils import timezone

from nodes.client import CallFailed, Reply, Target, call
from nodes.detect import Detection, detect, read_facts
from nodes.listing import ListedModel, NotAModelList, parse_listing
from nodes.models import NodeType
from nodes.telling import Facts

# An unanswered check is doubled after this long: a single lost packet or stuck connection is no dead node.
SECOND_AFTER_SECONDS: Final = 2.0
HEALTH_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Listing:
    """A good model list, and the answer that held it."""

    reply: Reply
    models: tuple[ListedModel, ...]


@dataclass(frozen=True, slots=True)
class Check:
    """How a check went. `listing` is None where it failed; `failures` is how many failures in a row it counts for."""

    started: datetime
    finished: datetime
    listing: Listing | None
    error: str = ""
    connect_failed: bool = False
    failures: int = 0
    facts: Facts | None = None

    @property
    def ok(self) -> bool:
        return self.listing is not None


@dataclass(frozen=True, slots=True)
class Look:
    """What a first, or a renewed, look at a node shows."""

    listing: Listing
    detection: Detection


async def list_models(target: Target, *, timeout: float) -> Listing:
    """The node's model list: `/v1/models`, or Ollama's `/api/tags` where there is no such page.

    Raises:
        CallFailed: it did not answer.
        NotAModelList: it answered, but not with a model list.
    """
    reply = await call(target, "/v1/models", timeout=timeout)
    if reply.status == 404:
        reply = await call(target, "/api/tags", timeout=timeout)
    if reply.status in {401, 403}:
        raise NotAModelList(f"answered {reply.status}: it wants another API key")
    if reply.status != 200:
        raise NotAModelList(f"answered {reply.status} where its models should be")
    return Listing(reply, parse_listing(reply.body))


async def look_at(target: Target, *, timeout: float) -> Look:
    """Models and engine of a node. Raises: as `list_models`."""
    listing = await list_models(target, timeout=timeout)
    return Look(listing, await detect(target, listing.reply))


async def check(target: Target, *, node_type: str, timeout: float) -> Check:
    """Check a node. Never raises for what the node does; takes at most `timeout` seconds."""
    started = timezone.now()
    health = asyncio.create_task(_health(target, node_type, min(HEALTH_SECONDS, timeout)))
    attempts = await _attempts(target, timeout)
    good = next((attempt for attempt in attempts if _succeeded(attempt)), None)
    if good is None:
        health.cancel()
        return _failed(started, attempts)
    return Check(started, timezone.now(), good.result(), facts=await health)


async def _attempts(target: Target, timeout: float) -> list[asyncio.Task[Listing]]:
    """One listing, and a second one beside it when the first is slow; until one is good or both have failed."""
    attempts = [asyncio.create_task(list_models(target, timeout=timeout))]
    await asyncio.wait(attempts, timeout=min(SECOND_AFTER_SECONDS, timeout))
    rest = timeout - SECOND_AFTER_SECONDS
    if not attempts[0].done() and rest > 0:
        attempts.append(asyncio.create_task(list_models(target, timeout=rest)))
    waiting = {attempt for attempt in attempts if not attempt.done()}
    while waiting and not any(_succeeded(attempt) for attempt in attempts):
        _done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for attempt in waiting:
        attempt.cancel()
    await asyncio.gather(*attempts, return_exceptions=True)
    return attempts


def _succeeded(attempt: asyncio.Task[Listing]) -> bool:
    return attempt.done() and not attempt.cancelled() and attempt.exception() is None


def _failed(started: datetime, attempts: list[asyncio.Task[Listing]]) -> Check:
    errors = [attempt.exception() for attempt in attempts]
    for error in errors:
        if not isinstance(error, CallFailed | NotAModelList):
            raise error or AssertionError("a check without an outcome")
    return Check(
        started,
        timezone.now(),
        None,
        error=describe(errors[0]),
        connect_failed=any(isinstance(error, CallFailed) and error.is_connect for error in errors),
        failures=len(errors),
    )


def describe(error: BaseException | None) -> str:
    """The failure in words that may be shown and logged."""
    return f"not a model list: {error}" if isinstance(error, NotAModelList) else str(error)


async def _health(target: Target, node_type: str, timeout: float) -> Facts | None:
    """Load and start time, of the one engine that reports them. Not knowing them is no failure."""
    if node_type != NodeType.XLLM:
        return None
    try:
        reply = await call(target, "/api/health", timeout=timeout)
    except CallFailed:
        return None
    return read_facts({"/api/health": reply.document}, NodeType.XLLM)
