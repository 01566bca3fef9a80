"""Following downloads: on the loop of the worker's background, from the claim to the end."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Final

from django.utils import timezone

from nodes.background import background
from nodes.client import CallFailed
from nodes.downloads.engines import FETCHERS, Fetcher, Look
from nodes.downloads.recording import Claimed, claim_due, record_interruption, record_look, renew
from nodes.models import UNFINISHED, DownloadState

WRITE_SECONDS: Final = 1.0
RENEW_SECONDS: Final = 3.0
CANNOT: Final = "a node of its type cannot fetch models"


def follow_due() -> int:
    """Begin to follow every download that nobody follows, and return at once. Returns: how many."""
    claimed = claim_due(timezone.now())
    for each in claimed:
        background().submit(_follow, each)
    return len(claimed)


async def _follow(claimed: Claimed) -> None:
    """Watch, and keep the claim; where a person has cancelled it, tell the node."""
    watching = asyncio.create_task(_watch(claimed))
    try:
        while not (await asyncio.wait({watching}, timeout=RENEW_SECONDS))[0]:
            if not await background().write(renew, claimed.pk):
                break
    finally:
        if not watching.done():
            watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching


async def _watch(claimed: Claimed) -> None:
    fetcher = FETCHERS.get(claimed.node_type)
    if fetcher is None:
        await background().write(record_look, claimed.pk, Look(DownloadState.FAILED, error=CANNOT))
        return
    try:
        look = await _tell(claimed, fetcher)
    except CallFailed as error:
        await background().write(record_interruption, claimed.pk, str(error))
        return
    if look is None or look.state in UNFINISHED:
        await background().write(record_interruption, claimed.pk, "broke off without a word")


async def _tell(claimed: Claimed, fetcher: Fetcher) -> Look | None:
    """Write each look, once in `WRITE_SECONDS` at most. Returns: the last one; a cancelled one counts as an end."""
    look, remote_id, written = None, claimed.remote_id, 0.0
    async with aclosing(fetcher.watch(claimed.target, claimed.wanted, claimed.remote_id)) as looks:
        async for look in looks:
            is_news = look.remote_id != remote_id or look.state != DownloadState.RUNNING
            if not is_news and time.monotonic() - written < WRITE_SECONDS:
                continue
            remote_id, written = look.remote_id, time.monotonic()
            goes_on = await background().write(record_look, claimed.pk, look)
            if not goes_on and look.state in UNFINISHED:
                await fetcher.cancel(claimed.target, remote_id)
                return replace(look, state=DownloadState.CANCELLED)
    return look
