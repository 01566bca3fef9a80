"""One batch of requests into the database, in one short transaction. Plain SQL: a quarter of the ORM's cost a row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from itertools import islice
from typing import Any, Final, NamedTuple

import msgspec
from django.db import connection, models, transaction

from history import partitions
from history.entries import AttemptEntry, RequestEntry
from history.models import RequestAttempt, RequestPayload, RequestRecord, SearchTerm, TokenTotal
from history.payloads import Payload
from history.tally import node_counts, token_totals
from history.terms import KnownTerms, Source, remember, sources_of, terms_of
from nodes.models import Node

_MAX_INTEGER: Final = 2**31 - 1
_MAX_SMALL: Final = 2**15 - 1
_ROWS_AT_ONCE: Final = 20  # in one statement of SQLite; more gain nothing

Row = tuple[Any, ...]


class Frame(msgspec.Struct):
    """A batch: requests without their bodies, and the bodies as they are stored."""

    entries: list[RequestEntry]
    payloads: list[Payload | None]


def write(frame: Frame, known: KnownTerms | None = None) -> None:
    """Store a batch: rows, attempts, payloads, totals and nodes' counters, all of it or nothing.

    `known` are search terms that the database has; without it, all of the batch's are written again.

    Raises:
        django.db.Error: nothing was written.
    """
    sources = sources_of(frame.entries) - (known or set())
    with transaction.atomic():
        ids = _reserve_ids(frame.entries)
        driver = _AS_IT_IS if connection.vendor == "postgresql" else _SQLITE
        _insert(RequestRecord, _record_rows(ids, frame.entries, driver))
        _insert(RequestAttempt, _attempt_rows(ids, frame.entries, driver), without_id=True)
        if any(frame.payloads):
            _insert(RequestPayload, _payload_rows(ids, frame.payloads, driver))
        _add_totals(frame.entries)
        _add_node_counts(frame.entries)
        _add_terms(sources)
    if known is not None:
        remember(known, sources)


def is_written(frame: Frame) -> bool:
    """Whether a batch whose commit was not heard of is in the database: it went in whole or not at all."""
    entry = frame.entries[0]
    return RequestRecord.objects.filter(request_id=entry.request_id[:64], started_at=entry.started_at).exists()


def cleaned(entry: RequestEntry) -> RequestEntry:
    """The same request with whatever no database takes put right: NUL, lone surrogates, numbers out of range."""
    fields = {name: _clean(getattr(entry, name)) for name in entry.__struct_fields__ if name != "attempts"}
    attempts = [
        AttemptEntry(**{name: _clean(getattr(attempt, name)) for name in attempt.__struct_fields__})
        for attempt in entry.attempts
    ]
    return RequestEntry(**fields, attempts=attempts)


def _clean(value: Any) -> Any:
    match value:
        case str():
            return value.replace("\0", "").encode(errors="replace").decode()
        case bool():
            return value
        case int() | float():
            return min(max(value, 0), _MAX_INTEGER)
    return value


# --- rows ---------------------------------------------------------------------------------------------------------


class _Driver(NamedTuple):
    """The form in which a database's driver takes a value in the least time."""

    moment: Callable[[datetime], Any]
    flag: Callable[[bool], Any]
    blob: Callable[[bytes], Any]


def _text_of(moment: datetime) -> str:
    """As Django writes an aware moment on SQLite: in UTC, without saying so."""
    text: str = msgspec.to_builtins(moment.astimezone(UTC))
    return text[:-1].replace("T", " ")


_AS_IT_IS: Final = _Driver(lambda moment: moment, lambda flag: flag, lambda blob: blob)
# For what is no int, float, str or bytearray it asks around how to adapt it, which takes longer than to store it.
_SQLITE: Final = _Driver(_text_of, int, bytearray)


def _record_rows(ids: Sequence[int], entries: Iterable[RequestEntry], driver: _Driver) -> Iterator[Row]:
    """In the order of the model's fields; clipped, because parts of it are whatever a client or a node said."""
    return (
        (
            pk,
            entry.request_id[:64],
            driver.moment(entry.started_at),
            entry.kind[:32],
            entry.model[:300],
            entry.served_model[:300],
            entry.node_id,
            entry.node_name[:100],
            entry.api_key_id,
            entry.api_key_name[:100],
            entry.client_ip[:45],
            entry.outcome,
            min(entry.status, _MAX_SMALL),
            entry.error_code[:60],
            entry.error_message[:300],
            driver.flag(entry.stream),
            driver.flag(entry.poison),
            len(entry.attempts),
            entry.duration_ms,
            entry.queue_ms,
            entry.first_byte_ms,
            entry.prompt_tokens,
            entry.completion_tokens,
            entry.total_tokens,
            entry.token_source,
            entry.tokens_per_second,
            entry.bytes_in,
            entry.bytes_out,
        )
        for pk, entry in zip(ids, entries, strict=True)
    )


def _attempt_rows(ids: Sequence[int], entries: Iterable[RequestEntry], driver: _Driver) -> Iterator[Row]:
    return (
        (
            pk,
            number,
            attempt.node_id,
            attempt.node_name[:100],
            attempt.selection_reason[:60],
            attempt.status,
            attempt.error[:200],
            driver.flag(attempt.excluded),
            attempt.duration_ms,
        )
        for pk, entry in zip(ids, entries, strict=True)
        for number, attempt in enumerate(entry.attempts, start=1)
    )


def _payload_rows(ids: Sequence[int], payloads: Iterable[Payload | None], driver: _Driver) -> Iterator[Row]:
    return (
        (
            pk,
            driver.flag(payload.encrypted),
            driver.blob(payload.bodies),
            driver.flag(payload.request_truncated),
            driver.flag(payload.response_truncated),
        )
        for pk, payload in zip(ids, payloads, strict=True)
        if payload is not None
    )


# --- statements ---------------------------------------------------------------------------------------------------


def _insert(model: type[models.Model], rows: Iterator[Row], *, without_id: bool = False) -> None:
    """Rows are made as they are taken: a thousand of them at once would set off the garbage collection."""
    table, columns = model._meta.db_table, _columns(model, without_id=without_id)
    if connection.vendor == "postgresql":
        into = f"{table} ({', '.join(columns)})"
        with (
            connection.cursor() as cursor,
            connection.wrap_database_errors,
            cursor.copy(f"COPY {into} FROM STDIN") as copy,
        ):
            for row in rows:
                copy.write_row(row)
        return
    with connection.wrap_database_errors:
        cursor = connection.connection.cursor()
        while values := _flat(islice(rows, _ROWS_AT_ONCE)):
            cursor.execute(_insert_statement(table, columns, len(values) // len(columns)), values)


def _flat(rows: Iterable[Row]) -> list[Any]:
    values: list[Any] = []
    for row in rows:
        values += row
    return values


@cache
def _columns(model: type[models.Model], *, without_id: bool) -> tuple[str, ...]:
    fields = model._meta.concrete_fields
    return tuple(field.attname for field in fields if not (without_id and field.primary_key))


@cache
def _insert_statement(table: str, columns: Sequence[str], rows: int) -> str:
    """With SQLite's own marks: Django would translate hundreds of its own every time."""
    row = f"({', '.join('?' * len(columns))})"
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([row] * rows)}"  # noqa: S608  # names of our own, values bound


def _reserve_ids(entries: Sequence[RequestEntry]) -> Sequence[int]:
    """Ids for new rows, so that attempts and payloads can name theirs without asking row by row."""
    if partitions.are_used():
        return partitions.reserve_ids([entry.started_at for entry in entries])
    with connection.cursor() as cursor:  # the transaction is IMMEDIATE: nobody else can insert now
        cursor.execute("SELECT seq FROM sqlite_sequence WHERE name = %s", [RequestRecord._meta.db_table])
        last = (cursor.fetchone() or (0,))[0]
    return range(last + 1, last + 1 + len(entries))


_TOTAL_KEY: Final = {"day": "date", "node_id": "bigint", "model": "text", "api_key_id": "bigint"}
_TOTAL_NAMES: Final = {"node_name": "text", "api_key_name": "text"}
_TOTAL_SUMS: Final = {
    **dict.fromkeys(("requests", "failures", "prompt_tokens", "completion_tokens", "estimated_requests"), "bigint"),
    "duration_ms": "float8",
}
# `bulk_create(update_conflicts=True)` can overwrite, but not add.
_ADD_TO_TOTAL: Final = f"({', '.join(_TOTAL_KEY)}) DO UPDATE SET " + ", ".join(
    [f"{name} = excluded.{name}" for name in _TOTAL_NAMES]
    + [f"{name} = {TokenTotal._meta.db_table}.{name} + excluded.{name}" for name in _TOTAL_SUMS]
)


def _add_totals(entries: Iterable[RequestEntry]) -> None:
    rows = [
        (str(key[0]), *key[1:], *(getattr(total, name) for name in (*_TOTAL_NAMES, *_TOTAL_SUMS)))
        for key, total in token_totals(entries)
    ]
    if rows:
        _upsert(TokenTotal, {**_TOTAL_KEY, **_TOTAL_NAMES, **_TOTAL_SUMS}, rows, _ADD_TO_TOTAL)


def _upsert(model: type[models.Model], columns: Mapping[str, str], rows: Sequence[tuple[Any, ...]], then: str) -> None:
    """Insert, and `then` where a row is there already. `columns` are names and their types.

    On PostgreSQL all rows go as one value: psycopg needs 10 µs for each that it binds.
    """
    into = f"INSERT INTO {model._meta.db_table} ({', '.join(columns)})"
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            record = ", ".join(f"{name} {kind}" for name, kind in columns.items())
            source = f"SELECT * FROM jsonb_to_recordset(%s::jsonb) AS given ({record})"  # noqa: S608  # names of our own, values bound
            given = msgspec.json.encode([dict(zip(columns, row, strict=True)) for row in rows]).decode()
            cursor.execute(f"{into} {source} ON CONFLICT {then}", [given])
        else:
            marks = ", ".join(["%s"] * len(columns))
            cursor.executemany(f"{into} VALUES ({marks}) ON CONFLICT {then}", rows)


def _add_node_counts(entries: Iterable[RequestEntry]) -> None:
    rows = [(count.total, count.successful, count.failed, node_id) for node_id, count in node_counts(entries)]
    if not rows:
        return
    with connection.cursor() as cursor:
        cursor.executemany(
            f"UPDATE {Node._meta.db_table} SET total_requests = total_requests + %s, "  # noqa: S608  # names of our own, values bound
            "successful_requests = successful_requests + %s, failed_requests = failed_requests + %s WHERE id = %s",
            rows,
        )


def _add_terms(sources: Iterable[Source]) -> None:
    rows = [(str(day), field, text) for day, field, text in terms_of(sources)]
    if rows:
        _upsert(SearchTerm, {"day": "date", "field": "text", "text": "text"}, rows, "DO NOTHING")
