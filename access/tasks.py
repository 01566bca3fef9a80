"""Housekeeping, by Celery beat."""

from __future__ import annotations

from celery import shared_task

from access import services


@shared_task(name="access.prune")
def prune() -> None:
    """Forget sign-in tokens and sessions that have been over for a while."""
    services.prune_credentials()
