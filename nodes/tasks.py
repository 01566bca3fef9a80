"""Celery: fixed ticks. What is due is a column on the row."""

from __future__ import annotations

from celery import shared_task

from nodes import polling, probing
from nodes.downloads import following, recording


@shared_task(name="nodes.poll_due")
def poll_due() -> int:
    return polling.poll_due()


@shared_task(name="nodes.probe_excluded")
def probe_excluded() -> int:
    return probing.probe_excluded()


@shared_task(name="nodes.prune_polls")
def prune_polls() -> int:
    return polling.prune_polls() + recording.prune_downloads()


@shared_task(name="nodes.follow_downloads")
def follow_downloads() -> int:
    return following.follow_due()
