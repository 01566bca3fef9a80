"""Celery: fixed ticks. What is due is a column on the row."""

from __future__ import annotations

from celery import shared_task

from models_catalog import listing


@shared_task(name="models_catalog.refresh_providers")
def refresh_providers() -> int:
    return listing.refresh_due()
