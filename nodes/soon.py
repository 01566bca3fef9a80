"""Tasks that should not wait for their next tick."""

from __future__ import annotations

import logging

from django.db import transaction

from llmlb_site.celery import app

log = logging.getLogger("llmlb.nodes")


def enqueue(task: str) -> None:
    """Run a Celery task once the transaction has committed. A broker that is down costs a tick, never the caller."""
    transaction.on_commit(lambda: _send(task), robust=True)


def _send(task: str) -> None:
    try:
        app.send_task(task, retry=False, expires=2)
    except Exception as error:
        log.warning("%s waits for its next tick: %s", task, type(error).__name__)
