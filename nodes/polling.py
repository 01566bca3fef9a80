"""Checking the nodes that are due: claimed by a conditional UPDATE, all at once, each written as it comes in.

With the default settings a death or a return shows within 10 s: a check is due 3.2 s after the one before
(`Node.poll_pause`), a tick comes every second, and a node that accepts and never answers is known after
LLMLB_PROBE_TIMEOUT = 5 s.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Final

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from nodes.background import background
from nodes.checking import check
from nodes.client import Target
from nodes.detect import detect
from nodes.models import Node, NodeModel, PollResult
from nodes.recording import record_check, record_detection

log = logging.getLogger("llmlb.nodes")

KEEP_DAYS: Final = 30
LONGEST_PAUSE: Final = timedelta(seconds=300)
SET_BACK: Final = timedelta(seconds=2)
PRUNE_BATCH: Final = 5000


def poll_due() -> int:
    """Start a check of every node that is due, and return at once. Returns: how many."""
    now = timezone.now()
    _clock.heed(now)
    claimed = claim_due(now)
    for node in claimed:
        background().submit(_poll, node.pk, Target(node.base_url, node.api_key), node.node_type)
    return len(claimed)


class _Clock:
    """Notices that the clock was set back: what was due in a minute would then be due in an hour and a minute."""

    def __init__(self) -> None:
        self._latest: datetime | None = None

    def heed(self, now: datetime) -> None:
        """What is due later than it can be is due now. After a start, only what nobody can have set so far ahead."""
        before, self._latest = self._latest, now
        if before is None:
            Node.objects.filter(next_poll_at__gt=now + LONGEST_PAUSE).update(next_poll_at=now)
        elif now < before - SET_BACK:
            log.warning("the clock was set back by %s: every node is checked now", before - now)
            Node.objects.filter(next_poll_at__gt=now).update(next_poll_at=now)
            NodeModel.objects.filter(next_probe_at__gt=now).update(next_probe_at=now)


_clock = _Clock()


def claim_due(now: datetime) -> list[Node]:
    """The nodes whose check is due and that no other worker has taken. Their next one is set before this one runs."""
    due = list(Node.objects.filter(enabled=True, next_poll_at__lte=now).order_by("next_poll_at"))
    if not due:
        return []
    with transaction.atomic():
        return [node for node in due if _claim(node, now)]


def _claim(node: Node, now: datetime) -> bool:
    mine = Node.objects.filter(pk=node.pk, enabled=True, next_poll_at=node.next_poll_at)
    return mine.update(next_poll_at=now + node.poll_pause()) == 1


async def _poll(node_id: int, target: Target, node_type: str) -> None:
    result = await check(target, node_type=node_type, timeout=settings.LLMLB.probe_timeout)
    recorded = await background().write(record_check, node_id, result)
    if recorded is not None and recorded.wants_detection and result.listing is not None:
        detection = await detect(target, result.listing.reply)
        await background().write(record_detection, node_id, detection)


def prune_polls() -> int:
    """Delete results older than `KEEP_DAYS`, a batch a transaction. Returns: how many."""
    old = PollResult.objects.filter(at__lt=timezone.now() - timedelta(days=KEEP_DAYS)).order_by("at")
    deleted = 0
    while batch := list(old.values_list("pk", flat=True)[:PRUNE_BATCH]):
        deleted += PollResult.objects.filter(pk__in=batch).delete()[0]
    return deleted
