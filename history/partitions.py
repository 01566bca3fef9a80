"""Days as partitions, on PostgreSQL: a day of history is dropped at once, and a page reads the days that it shows.

A request's id says its day (UTC): days since 1970 times `IDS_A_DAY`, and a number that counts within the day. So ids
grow with time, one key partitions requests, attempts and bodies alike, and PostgreSQL prunes by it. What was written
before there were days has smaller ids, and lies in a partition of its own; what fits nowhere lies in the default one.
SQLite has plain tables, and ids that simply count.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final

from django.db import IntegrityError, connection, transaction

log = logging.getLogger("llmlb.history")

IDS_A_DAY: Final = 10**10
AHEAD: Final = 7  # days that have their partition before they begin: so long may the beat be away
# Table, and the column that says the request.
TABLES: Final = {
    "history_requestrecord": "id",
    "history_requestattempt": "record_id",
    "history_requestpayload": "record_id",
}
_REQUESTS: Final = "history_requestrecord"
_EPOCH: Final = date(1970, 1, 1)
_LOCK_MS: Final = 1000
_LOCK: Final = 0x6C6C6D6C63  # any number that nothing else locks


def are_used() -> bool:
    """Whether this database has them."""
    return connection.vendor == "postgresql"


def first_id(day: date) -> int:
    """The smallest id that a request of `day` can have."""
    return (day - _EPOCH).days * IDS_A_DAY


def day_of(moment: datetime) -> date:
    return moment.astimezone(UTC).date()


def create_ahead(today: date) -> int:
    """Make the partitions of today and the next days that are missing. Returns how many; 0 on SQLite.

    Raises:
        django.db.OperationalError: somebody has been reading the history for too long; try again.
    """
    if not are_used():
        return 0
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])  # one process at a time
        missing = sorted({today + timedelta(days=number) for number in range(AHEAD + 1)} - set(days()))
        return sum(_create(day) for day in missing)


def drop_before(day: date) -> int:
    """Drop the partitions of all days before `day`. Returns how many requests were in them; 0 on SQLite.

    Raises:
        django.db.OperationalError: somebody has been reading one of them for too long; try again.
    """
    if not are_used():
        return 0
    sizes = {low // IDS_A_DAY: high - low + 1 for low, high in spans()}
    old = [old for old in days() if old < day]
    for each in old:
        _drop(each)
    return sum(sizes.get(first_id(each) // IDS_A_DAY, 0) for each in old)


def days() -> list[date]:
    """The days that have partitions, oldest first; none on SQLite."""
    if not are_used():
        return []
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT right(inhrelid::regclass::text, 8) FROM pg_inherits "
            "WHERE inhparent = %s::regclass AND inhrelid::regclass::text ~ '_[0-9]{8}$' ORDER BY 1",
            [_REQUESTS],
        )
        return [datetime.strptime(text, "%Y%m%d").replace(tzinfo=UTC).date() for (text,) in cursor.fetchall()]


def reserve_ids(moments: Sequence[datetime]) -> list[int]:
    """An id for each request, by when it began; those of one day follow each other. Inside a transaction."""
    days = [day_of(moment) for moment in moments]
    free = {day: iter(_numbers(day, count)) for day, count in Counter(days).items()}
    return [next(free[day]) for day in days]


def spans() -> list[tuple[int, int]]:
    """Lowest and highest id of each day that has requests, newest day first: within a day there are hardly any gaps."""
    with connection.cursor() as cursor:
        cursor.execute(_SPANS if are_used() else _SPAN)
        return [(low, high) for low, high in cursor.fetchall() if high is not None]


_SPAN: Final = f"SELECT (SELECT min(id) FROM {_REQUESTS}), (SELECT max(id) FROM {_REQUESTS})"  # noqa: S608  # a name of our own
# From day to day by the index alone: each step asks for the highest id below the day before.
_SPANS: Final = f"""
    WITH RECURSIVE newest (high) AS (
        SELECT max(id) FROM {_REQUESTS}
        UNION ALL
        SELECT (SELECT max(id) FROM {_REQUESTS} WHERE id < high / {IDS_A_DAY} * {IDS_A_DAY}) FROM newest WHERE high > 0
    )
    SELECT (SELECT min(id) FROM {_REQUESTS} WHERE id >= high / {IDS_A_DAY} * {IDS_A_DAY} AND id <= high), high
    FROM newest
"""  # noqa: S608  # names and numbers of our own


def _name(table: str, day: date) -> str:
    return f"{table}_{day:%Y%m%d}"


def _numbers(day: date, count: int) -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT array_agg(%s + nextval(coalesce(to_regclass(%s), %s::regclass))) FROM generate_series(1, %s)",
            [first_id(day), f"{_name(_REQUESTS, day)}_seq", f"{_REQUESTS}_id_seq", count],
        )
        numbers: list[int] = cursor.fetchone()[0]
        return numbers


def _create(day: date) -> bool:
    try:
        with transaction.atomic():
            _execute(*statements_of(day))
    except IntegrityError:  # the beat was away for longer than AHEAD: the day's requests went where the others do
        log.warning("the requests of %s stay in the default partition", day)
        return False
    return True


def _drop(day: date) -> None:
    with transaction.atomic():
        _execute(f"DROP TABLE {', '.join(_name(table, day) for table in TABLES)}")


def _execute(*statements: str) -> None:
    """Each of these locks the tables for a moment, and everybody waits behind who waits for a lock: so not for long."""
    with connection.cursor() as cursor:
        for statement in (f"SET LOCAL lock_timeout = {_LOCK_MS}", *statements):
            cursor.execute(statement)


def statements_of(day: date) -> list[str]:
    """What makes the partitions of one day."""
    low, high = first_id(day), first_id(day + timedelta(days=1))
    parts = [
        f"CREATE TABLE {_name(table, day)} PARTITION OF {table} FOR VALUES FROM ({low}) TO ({high})" for table in TABLES
    ]
    requests = _name(_REQUESTS, day)
    return [*parts, f"CREATE SEQUENCE {requests}_seq OWNED BY {requests}.id"]
