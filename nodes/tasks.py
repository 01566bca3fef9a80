"""Celery: fixed ticks. What is due is a column on the row."""

from __future__ import annotations

import logging
from collections.abc import Callable

from celery import shared_task
from django.db import OperationalError

from nodes import polling, probing
from nodes.downloads import following, recording

log = logging.getLogger("llmlb.nodes")


@shared_task(name="nodes.tick")
def tick() -> None:
    """Start all that is due on nodes. One task and not three: a tick with nothing due costs as much as its message."""
    for start_due in (polling.poll_due, probing.probe_excluded, following.follow_due):
        _try(start_due)


def _try(start_due: Callable[[], int]) -> None:
    """The others must not wait for the one that fails."""
    try:
        start_due()
    except OperationalError as error:  # it is away, and that is no error of ours
        reason = str(error).partition("\n")[0]
        log.warning("%s failed and is tried again at the next tick: %s", start_due.__name__, reason)
    except Exception:
        log.exception("%s failed and is tried again at the next tick", start_due.__name__)


@shared_task(name="nodes.poll_due")
def poll_due() -> int:
    return polling.poll_due()


@shared_task(name="nodes.probe_excluded")
def probe_excluded() -> int:
    return probing.probe_excluded()


@shared_task(name="nodes.follow_downloads")
def follow_downloads() -> int:
    return following.follow_due()


@shared_task(name="nodes.prune_polls")
def prune_polls() -> int:
    return polling.prune_polls() + recording.prune_downloads()
