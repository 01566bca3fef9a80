"""The rows of downloads: who follows one, how far it is, how it ended. Each function is one short transaction."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from llmlb_site.lib.events import publish
from nodes.client import Target
from nodes.downloads.engines import Look, Wanted
from nodes.models import UNFINISHED, Download, DownloadState
from nodes.services.lifecycle import check_node_soon

log = logging.getLogger("llmlb.nodes")

CLAIM: Final = timedelta(seconds=15)
# Interruptions in a row, without a byte in between, after which a download is given up.
INTERRUPTIONS: Final = 5
KEEP: Final = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Claimed:
    """A download that this worker follows."""

    pk: int
    target: Target
    node_type: str
    wanted: Wanted
    remote_id: str


def claim_due(now: datetime) -> list[Claimed]:
    """The downloads that nobody follows, now this worker's."""
    free = Q(followed_until=None) | Q(followed_until__lte=now)
    due = Download.objects.filter(free, state__in=UNFINISHED)
    if not due.exists():  # nearly always, and half the price of the rows
        return []
    return [_claimed(row) for row in due.select_related("node") if _claim(row, now)]


def _claim(row: Download, now: datetime) -> bool:
    mine = Download.objects.filter(pk=row.pk, followed_until=row.followed_until, state__in=UNFINISHED)
    return mine.update(followed_until=now + CLAIM) == 1


def _claimed(row: Download) -> Claimed:
    node = row.node
    return Claimed(row.pk, Target(node.base_url, node.api_key), node.node_type, Wanted(**row.options), row.remote_id)


def renew(pk: int) -> bool:
    """Go on following. Returns: False where it is over, cancelled or gone."""
    return Download.objects.filter(pk=pk, state__in=UNFINISHED).update(followed_until=timezone.now() + CLAIM) == 1


def record_look(pk: int, look: Look) -> bool:
    """Write how far a download is. Returns: whether it is to be gone on with."""
    now = timezone.now()
    with transaction.atomic():
        row = Download.objects.select_for_update().select_related("node").filter(pk=pk, state__in=UNFINISHED).first()
        if row is None:
            return False
        if look.done > row.downloaded_bytes:
            row.interruptions = 0
        row.bytes_per_second = _speed(row, look, now)
        row.state, row.downloaded_bytes, row.total_bytes = look.state, look.done, look.total or row.total_bytes
        row.detail, row.error = look.detail[:200], look.error[:300]
        row.remote_id = look.remote_id or row.remote_id
        row.updated_at, row.followed_until = now, now + CLAIM
        if not row.is_unfinished:
            _end(row, now)
        row.save()
        publish("downloads", {"node": row.node_id})
    return row.is_unfinished


def record_interruption(pk: int, reason: str) -> None:
    """The node could not be asked. Try again a little later, or give up."""
    now = timezone.now()
    with transaction.atomic():
        row = Download.objects.select_for_update().select_related("node").filter(pk=pk, state__in=UNFINISHED).first()
        if row is None:
            return
        row.interruptions += 1
        row.updated_at, row.bytes_per_second = now, 0.0
        row.followed_until = now + timedelta(seconds=2**row.interruptions)
        row.detail = f"the node {reason}"[:200]
        if row.interruptions > INTERRUPTIONS:
            row.state, row.error = DownloadState.FAILED, row.detail
            _end(row, now)
        row.save()
        publish("downloads", {"node": row.node_id})


def _end(row: Download, now: datetime) -> None:
    row.finished_at, row.bytes_per_second, row.detail = now, 0.0, ""
    if row.state == DownloadState.SUCCESS:
        row.downloaded_bytes = row.total_bytes or row.downloaded_bytes
        log.info("downloaded: node=%s model=%s", row.node.name, row.model)
        check_node_soon(node_id=row.node_id)
    else:
        log.warning("download %s: node=%s model=%s reason=%s", row.state, row.node.name, row.model, row.error)


def _speed(row: Download, look: Look, now: datetime) -> float:
    """What the node says, or what came since the last look."""
    if look.speed is not None:
        return look.speed
    seconds = (now - row.updated_at).total_seconds()
    return max(0.0, look.done - row.downloaded_bytes) / seconds if seconds > 0 else row.bytes_per_second


def prune_downloads() -> int:
    """Delete what ended long ago. Returns: how many."""
    return Download.objects.filter(finished_at__lt=timezone.now() - KEEP).delete()[0]
