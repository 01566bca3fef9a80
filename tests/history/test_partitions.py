"""On PostgreSQL a day of history is a partition: found without the others, and dropped at once."""

from __future__ import annotations

import logging
from datetime import UTC, date, datetime, timedelta

import pytest
from django.db import connection
from django.utils import timezone

from history import partitions, queries, services
from history.filters import Filters
from history.models import RequestAttempt, RequestPayload, RequestRecord, SearchTerm
from tests.history.conftest import make_entry, store, with_bodies

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.skipif(connection.vendor != "postgresql", reason="PostgreSQL's partitions"),
]


def noon(days_ago: int) -> datetime:
    """The middle of a day (UTC), so that no test depends on the hour at which it runs."""
    return timezone.now().replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=days_ago)


def today() -> date:
    return timezone.now().date()


def partition_of(table: str, column: str, pk: int) -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT tableoid::regclass::text FROM {table} WHERE {column} = %s", [pk])
        return str(cursor.fetchone()[0])


@pytest.fixture
def days() -> None:
    """Ten days have their partitions: the next week as always, and the three before today."""
    for ago in (0, 3):
        partitions.create_ahead(today() - timedelta(days=ago))


@pytest.mark.usefixtures("days")
def test_a_request_its_attempts_and_its_bodies_lie_in_the_day_it_began() -> None:
    yesterday, now = store(with_bodies(started_at=noon(1)), with_bodies(started_at=noon(0)))
    for record, ago in ((yesterday, 1), (now, 0)):
        day = f"{today() - timedelta(days=ago):%Y%m%d}"
        for table, column in partitions.TABLES.items():
            assert partition_of(table, column, record.pk) == f"{table}_{day}"
    assert yesterday.pk < now.pk < partitions.first_id(today() + timedelta(days=1))


@pytest.mark.usefixtures("days")
def test_days_that_are_wholly_old_are_dropped_with_all_that_belongs_to_them() -> None:
    store(*(with_bodies(request_id=str(ago), started_at=noon(ago)) for ago in (3, 2, 2, 1, 0)))
    assert services.prune(days=1, pause=0) == 3
    assert partitions.days()[0] == today() - timedelta(days=1)
    assert list(RequestRecord.objects.order_by("id").values_list("request_id", flat=True)) == ["1", "0"]
    assert RequestAttempt.objects.count() == RequestPayload.objects.count() == 2
    assert SearchTerm.objects.filter(day__lt=today() - timedelta(days=1)).count() == 0


def test_what_has_no_day_of_its_own_is_kept_and_deleted_all_the_same() -> None:
    (record,) = store(with_bodies(started_at=noon(30)))
    assert partition_of("history_requestrecord", "id", record.pk) == "history_requestrecord_default"
    assert queries.find_page(Filters(start_time=noon(31), end_time=noon(29))).total == 1
    assert services.prune(days=7, pause=0) == 1
    assert not RequestAttempt.objects.exists()


def test_what_was_written_before_there_were_days_is_found_by_time() -> None:
    values = {"kind": "chat", "outcome": "success", "status": 200, "duration_ms": 1.0}
    old = RequestRecord.objects.create(request_id="old", started_at=noon(2), **values)
    assert old.pk < partitions.IDS_A_DAY
    (new,) = store(make_entry(started_at=noon(0)))
    assert queries.find_page(Filters(start_time=noon(3), end_time=noon(1))).records == [old]
    assert queries.find_page(Filters(start_time=noon(3))).records == [new, old]


@pytest.mark.usefixtures("days")
def test_pages_and_their_number_reach_over_the_days() -> None:
    store(*(make_entry(request_id=str(n), started_at=noon(2 - n // 10)) for n in range(30)))
    assert [high - low for low, high in partitions.spans()] == [9, 9, 9]
    page = queries.find_page(Filters(), number=2, per_page=25)
    assert (page.total, [record.request_id for record in page.records]) == (30, ["4", "3", "2", "1", "0"])


@pytest.mark.usefixtures("days")
def test_a_time_range_reads_only_its_days() -> None:
    store(make_entry(started_at=noon(1)))
    plan = Filters(start_time=noon(1), end_time=noon(1) + timedelta(hours=1)).records().explain()
    read = {day for day in partitions.days() if f"requestrecord_{day:%Y%m%d}" in plan}
    assert read == {today() - timedelta(days=1)}


def test_days_are_made_once_and_ahead() -> None:
    assert partitions.create_ahead(today()) == partitions.AHEAD + 1
    assert partitions.create_ahead(today()) == 0
    assert partitions.create_ahead(today() + timedelta(days=1)) == 1


def test_a_day_whose_requests_already_lie_elsewhere_does_without(caplog: pytest.LogCaptureFixture) -> None:
    store(make_entry(started_at=noon(0)))
    with caplog.at_level(logging.WARNING, "llmlb.history"):
        assert services.prepare_days() == partitions.AHEAD
    assert "stay in the default partition" in caplog.text
    assert store(make_entry(started_at=datetime.now(UTC)))
    assert RequestRecord.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_a_day_that_somebody_reads_is_dropped_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "_LOCK_MS", 50)
    partitions.create_ahead(today() - timedelta(days=9))
    reader = connection.copy()
    try:
        reader.set_autocommit(False)
        with reader.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM history_requestrecord")
        services.prune(days=1, pause=0)
        assert partitions.days()[0] == today() - timedelta(days=9)
        reader.rollback()
        services.prune(days=1, pause=0)
        assert partitions.days() == []
    finally:
        reader.close()
        partitions.drop_before(today())
