"""What beat ticks; see CELERY_BEAT_SCHEDULE."""

from __future__ import annotations

from celery import shared_task
from django.conf import settings

from history import services


@shared_task(name="history.prune")
def prune() -> None:
    """Delete requests older than LLMLB_REQUEST_HISTORY_RETENTION_DAYS."""
    services.prune(days=settings.LLMLB.history_retention_days)


@shared_task(name="history.prepare_days")
def prepare_days() -> None:
    """Make the partitions of the days to come, before they are needed."""
    services.prepare_days()
