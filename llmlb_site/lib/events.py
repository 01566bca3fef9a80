"""News between the apps and between processes: `publish` after the commit, `subscribe` wherever it matters.

An event says that something of a topic changed, never what it is now: the subscriber reads that from the
database. So a lost event costs a second (until `Revision` is compared), never correctness.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from django.db import transaction
from django.db.models import F

log = logging.getLogger("llmlb.events")

Topic = Literal["nodes", "models", "keys", "history", "exclusions", "downloads"]
Payload = Mapping[str, Any]
Subscriber = Callable[[str, Payload], None]

# Topics that processes read their configuration from. The others only tell the dashboard that there is more to see.
COUNTED: Final[frozenset[Topic]] = frozenset({"nodes", "models", "keys", "exclusions"})

_subscribers: dict[str, list[Subscriber]] = defaultdict(list)
_relay: Subscriber | None = None
_settling: list[Callable[[], None]] = []


def publish(topic: Topic, payload: Payload | None = None) -> None:
    """Tell everyone, once the surrounding transaction (if any) has committed, that something of `topic` changed."""
    if topic in COUNTED:
        _count(topic)
    transaction.on_commit(lambda: deliver(topic, payload or {}, from_elsewhere=False), robust=True)


def subscribe(topic: Topic, subscriber: Subscriber) -> Callable[[], None]:
    """Call `subscriber(topic, payload)` on every event, in the publishing thread: it must be quick.

    Returns:
        A function that ends the subscription.
    """
    _subscribers[topic].append(subscriber)
    return lambda: _subscribers[topic].remove(subscriber) if subscriber in _subscribers[topic] else None


def deliver(topic: str, payload: Payload, *, from_elsewhere: bool) -> None:
    """Hand an event to this process's subscribers, and to the relay unless it came through the relay."""
    for subscriber in tuple(_subscribers[topic]):
        try:
            subscriber(topic, payload)
        except Exception:
            log.exception("a subscriber of %s failed", topic)
    if _relay is not None and not from_elsewhere:
        _relay(topic, payload)


def set_relay(relay: Subscriber | None) -> None:
    """Install what carries events to other processes (`lib.relay`, in the scaled profile)."""
    global _relay
    _relay = relay


def on_settle(wait: Callable[[], None]) -> Callable[[], None]:
    """`wait` returns once what its owner has seen and not yet stored is stored; see `settle`.

    Returns:
        A function that forgets it again.
    """
    _settling.append(wait)
    return lambda: _settling.remove(wait) if wait in _settling else None


def settle() -> None:
    """Wait until what was seen in this process is stored, or the database is too slow for it.

    For whoever looks at it for a person, or undoes it: a request is answered before its consequences are written.
    """
    for wait in tuple(_settling):
        wait()


def _count(topic: str) -> None:
    from llmlb_site.lib.models import Revision

    if not Revision.objects.filter(topic=topic).update(number=F("number") + 1):
        Revision.objects.get_or_create(topic=topic, defaults={"number": 1})
