"""Writing, apart from the recorder: retention, and revealing what somebody said."""

from __future__ import annotations

import logging
import time
from datetime import datetime, timedelta
from typing import Final

from django.db import OperationalError, connection, transaction
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from access import audit
from access.audit import Actor
from access.models import User
from access.refusals import NotAllowed
from history import partitions
from history.models import RequestAttempt, RequestPayload, RequestRecord, SearchTerm
from history.payloads import Bodies, unpack
from llmlb_site.lib.events import publish

log = logging.getLogger("llmlb.history")

DELETED_AT_ONCE: Final = 5000
PAUSE_SECONDS: Final = 0.05  # between two deletions: the recorder's turn at the database


def prune(*, days: int, pause: float = PAUSE_SECONDS) -> int:
    """Delete requests that began more than `days` days ago, with attempts and bodies; 0 keeps everything.

    Days that are partitions go as a whole, once all of the day is that old.
    Token totals and nodes' counters stay as they are.

    Returns:
        How many requests were deleted.
    """
    if days <= 0:
        return 0
    before = timezone.now() - timedelta(days=days)
    deleted = _drop_days(before)
    if before.date() in partitions.days():  # what is left of that day goes with it, at its end
        before = before.replace(hour=0, minute=0, second=0, microsecond=0)
    while count := _delete_some(RequestRecord.objects.filter(started_at__lt=before).order_by("started_at")):
        deleted += count
        time.sleep(pause)
    SearchTerm.objects.filter(day__lt=before.date()).delete()
    if deleted:
        publish("history")
    return deleted


def prepare_days() -> int:
    """Make the partitions of the days to come. Returns how many were missing."""
    try:
        return partitions.create_ahead(timezone.now().date())
    except OperationalError as error:
        log.warning("days of history are prepared next time: %s", type(error).__name__)
        return 0


def reveal_payload(record: RequestRecord, *, person: User, ip: str | None = None) -> Bodies:
    """What a request's client sent and got, in the clear; that `person` looked at it goes into the audit first.

    Raises:
        NotAllowed: the person lacks `history.view_payload`, which administrators have.
        llmlb_site.lib.crypto.DecryptionError: it was stored under another secret key.
    """
    if not may_reveal(person):
        raise NotAllowed(_("Only administrators may reveal what was sent and answered."))
    details = {"request_id": record.request_id}
    audit.record("history.reveal", actor=Actor.user(person, ip), target=f"request {record.pk}", details=details)
    return bodies_of(record)


def may_reveal(person: User) -> bool:
    return person.has_perm("history.view_payload")


def bodies_of(record: RequestRecord) -> Bodies:
    """A request's bodies, for masking.

    Raises:
        llmlb_site.lib.crypto.DecryptionError: they were stored under another secret key.
    """
    payload = getattr(record, "payload", None)
    if payload is None:
        return Bodies(b"", b"")
    return unpack(bytes(payload.bodies), encrypted=payload.encrypted)


def _drop_days(before: datetime) -> int:
    """Drop the days that lie wholly before that moment."""
    try:
        return partitions.drop_before(before.date())
    except OperationalError as error:
        log.warning("old days of history are dropped next time: %s", type(error).__name__)
        return 0


def _delete_some(records: QuerySet[RequestRecord]) -> int:
    """Delete up to `DELETED_AT_ONCE` of them in one short transaction."""
    ids = list(records.values_list("id", flat=True)[:DELETED_AT_ONCE])
    with transaction.atomic():
        RequestPayload.objects.filter(record_id__in=ids).delete()
        RequestAttempt.objects.filter(record_id__in=ids).delete()
        # Nothing else refers to them: `delete()` would load every row to find that out.
        RequestRecord.objects.filter(pk__in=ids)._raw_delete(connection.alias)
    return len(ids)
