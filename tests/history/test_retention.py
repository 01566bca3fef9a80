"""Requests are kept as long as the operator wants, and then are gone with all that belongs to them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from history import services, tasks
from history.models import RequestAttempt, RequestPayload, RequestRecord, TokenTotal
from tests.history.conftest import days_ago, make_entry, store, with_bodies

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def requests(db: None) -> None:
    store(*(with_bodies(request_id=str(days), started_at=days_ago(days)) for days in (30, 8, 7.1, 6.9, 1, 0)))


def left() -> list[str]:
    return list(RequestRecord.objects.order_by("id").values_list("request_id", flat=True))


def test_what_is_older_goes_with_attempts_and_bodies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "DELETED_AT_ONCE", 2)
    assert services.prune(days=7, pause=0) == 3
    assert left() == ["6.9", "1", "0"]
    assert RequestAttempt.objects.count() == RequestPayload.objects.count() == 3


def test_totals_stay() -> None:
    services.prune(days=1, pause=0)
    assert sum(TokenTotal.objects.values_list("requests", flat=True)) == 6


def test_nothing_goes_where_everything_is_kept() -> None:
    assert services.prune(days=0) == 0
    assert len(left()) == 6


def test_the_task_takes_the_operators_setting(settings: Any) -> None:
    settings.LLMLB = dataclasses.replace(settings.LLMLB, history_retention_days=2)
    tasks.prune()
    assert left() == ["1", "0"]


def test_ids_are_not_used_again() -> None:
    last = RequestRecord.objects.order_by("-id")[0].pk
    services.prune(days=1, pause=0)
    RequestRecord.objects.all().delete()
    assert store(make_entry())[0].pk == last + 1
