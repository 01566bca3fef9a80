"""The history at scale: `python -m benchmarks.history [--postgresql] [--rows N]`.

Fills a database of its own (SQLite with 1 000 000 requests in two minutes, PostgreSQL with 10 000 000 in six minutes
and 6 GB), then times the first page, with its total, for each filter, and tells how many bytes a request takes; on
PostgreSQL also how long it takes to drop a day. Prints the goals, and keeps everything in `benchmarks/results/`.
"""

from __future__ import annotations

import random
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from benchmarks import at_scale
from benchmarks.side_by_side import scale
from benchmarks.side_by_side.results import Writer
from benchmarks.side_by_side.samples import OURS, Sample, percentile

MODELS = [f"model-{n}" for n in range(20)]
SPAN = timedelta(days=7)
REPEATS = 60
_ERRORS = {503: "no_capable_nodes", 502: "node_connection_error", 404: "model_not_found", 400: "invalid_request_error"}


def entries(rows: int, end: datetime) -> Iterator[Any]:
    """A week of traffic, 1 % of it failed in each of four ways, one request in 500 000 with a rare error text."""
    from history.entries import AttemptEntry, RequestEntry

    dice = random.Random(7)
    weights = [1 / (n + 1) for n in range(len(MODELS))]
    for number in range(rows):
        node = dice.randrange(1, 11)
        model = dice.choices(MODELS, weights)[0]
        status = dice.choices([200, *_ERRORS], [96, 1, 1, 1, 1])[0]
        good = status == 200
        yield RequestEntry(
            request_id=uuid.UUID(int=dice.getrandbits(128)).hex,
            started_at=end - SPAN + SPAN * (number / rows),
            kind=dice.choice(["chat", "chat", "chat", "completion", "embedding"]),
            outcome="success" if good else "client_error" if status < 500 else "node_error",
            status=status,
            duration_ms=dice.expovariate(1 / 800),
            first_byte_ms=dice.expovariate(1 / 100),
            model=model,
            served_model=model,
            node_id=node,
            node_name=f"node-{node}",
            api_key_id=dice.randrange(1, 51),
            api_key_name="a key",
            client_ip=f"10.0.{dice.randrange(4)}.{dice.randrange(250)}",
            error_code=_ERRORS.get(status, ""),
            error_message="" if good else "明日の天気" if dice.random() < 50 / rows else "The node did not answer.",
            stream=dice.random() < 0.5,
            prompt_tokens=dice.randrange(1000),
            completion_tokens=dice.randrange(1000),
            total_tokens=1000,
            token_source="usage",
            attempts=[
                AttemptEntry(node_id=node, node_name=f"node-{node}", selection_reason="least_busy", status=status)
            ],
        )


def fill(rows: int) -> None:
    from django.db import connection

    from history.writer import Frame, write

    if connection.vendor == "postgresql":
        fill_days(rows)
        return
    source = entries(rows, datetime.now(UTC))
    while batch := list(islice(source, 1000)):
        write(Frame(batch, [None] * len(batch)))


# The same traffic as `entries`, made where it is kept. %s: a day's first id, its first moment, and how many requests.
_INSERT_REQUESTS = """
    INSERT INTO {requests} (id, request_id, started_at, kind, model, served_model, node_id, node_name, api_key_id,
        api_key_name, client_ip, outcome, status, error_code, error_message, stream, poison, attempt_count,
        duration_ms, queue_ms, first_byte_ms, prompt_tokens, completion_tokens, total_tokens, token_source,
        tokens_per_second, bytes_in, bytes_out)
    SELECT %s + n, md5(random()::text), %s::timestamptz + n * interval '1 day' / %s,
        (array['chat', 'chat', 'chat', 'completion', 'embedding'])[1 + floor(random() * 5)::int],
        model, model, node, 'node-' || node, 1 + floor(random() * 50)::int, 'a key',
        '10.0.' || floor(random() * 4)::int || '.' || floor(random() * 250)::int,
        CASE WHEN status = 200 THEN 'success' WHEN status < 500 THEN 'client_error' ELSE 'node_error' END, status,
        CASE status WHEN 503 THEN 'no_capable_nodes' WHEN 502 THEN 'node_connection_error'
            WHEN 404 THEN 'model_not_found' WHEN 400 THEN 'invalid_request_error' ELSE '' END,
        CASE WHEN status = 200 THEN '' WHEN n %% 150000 < 30 THEN '明日の天気' ELSE 'The node did not answer.' END,
        random() < 0.5, false, 1, random() * 1600, 0, random() * 200, 1000 * random(), 1000 * random(), 1000, 'usage',
        null, 1000, 1000
    FROM (
        SELECT n, 'model-' || floor(power(21, random()) - 1)::int AS model, 1 + floor(random() * 10)::int AS node,
            coalesce((array[503, 502, 404, 400])[1 + floor(random() * 100)::int], 200) AS status
        FROM generate_series(1, %s) AS n
    ) AS made
"""
_INSERT_ATTEMPTS = """
    INSERT INTO {attempts} (id, record_id, number, node_id, node_name, selection_reason, status, error, excluded,
        duration_ms)
    SELECT id, id, 1, node_id, node_name, 'least_busy', status, '', false, duration_ms FROM {requests}
"""


def fill_days(rows: int) -> None:
    """The last seven whole days: each a table of its own, whose indexes are built when it becomes a partition."""
    from django.db import connection

    from history import partitions
    from history.terms import FIELDS

    today = datetime.now(UTC).date()
    count = rows // 7
    with connection.cursor() as cursor:
        for ago in range(7, 0, -1):
            day = today - timedelta(days=ago)
            first, after = partitions.first_id(day), partitions.first_id(day + timedelta(days=1))
            bounds = f"FOR VALUES FROM ({first}) TO ({after})"
            parts = {table: f"{table}_{day:%Y%m%d}" for table in partitions.TABLES}
            requests, attempts, _ = parts.values()
            for table, part in parts.items():
                cursor.execute(f"CREATE TABLE {part} (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
            start = f"{day} 00:00:00+00"
            cursor.execute(_INSERT_REQUESTS.format(requests=requests), [first, start, count, count])
            cursor.execute(_INSERT_ATTEMPTS.format(requests=requests, attempts=attempts))
            for table, part in parts.items():
                cursor.execute(f"ALTER TABLE {table} ATTACH PARTITION {part} {bounds}")
            cursor.execute(f"CREATE SEQUENCE {requests}_seq OWNED BY {requests}.id START {count + 1}")
        for field in FIELDS:
            cursor.execute(
                "INSERT INTO history_searchterm (day, field, text) "
                f"SELECT DISTINCT (started_at AT TIME ZONE 'UTC')::date, '{field}', {field} "
                f"FROM history_requestrecord WHERE {field} <> '' ON CONFLICT DO NOTHING"
            )
        cursor.execute("VACUUM ANALYZE")


def time_filters(vendor: str) -> Iterator[Sample]:
    """First page with its total, through the same function as page and API: each filter, then all of them together."""
    from history.filters import Filters
    from history.models import RequestRecord
    from history.queries import Page, find_page

    newest = RequestRecord.objects.order_by("-id")[0]
    end = newest.started_at
    day = timedelta(days=1)
    cases: dict[str, dict[str, Any]] = {
        "none": {},
        "model, exact (28 %)": {"model_exact": "model-0"},
        "model, a part (common)": {"model": "model-1"},
        "model, a part (not there)": {"model": "zzz"},
        "node": {"node_id": 3},
        "key": {"api_key_id": 7},
        "node and key and model": {"node_id": 3, "api_key_id": 7, "model_exact": "model-0"},
        "outcome": {"outcome": "node_error"},
        "status 503": {"status": "503"},
        "status 4xx": {"status": "4xx"},
        "status error": {"status": "error"},
        "kind": {"kind": "embedding"},
        "kind (not there)": {"kind": "rerank"},
        "stream": {"stream": True},
        "request id": {"request_id": newest.request_id},
        "client address": {"client_ip": "10.0.1.5"},
        "last hour": {"start_time": end - day / 24},
        "one day, a week ago": {"start_time": end - 7 * day, "end_time": end - 6 * day},
        "an hour of it and a model": {
            "start_time": end - 5.5 * day,
            "end_time": end - 5.5 * day + day / 24,
            "model_exact": "model-0",
        },
        "until noon, and a model": {"end_time": end - 4.5 * day, "model_exact": "model-0"},
        "six days and a model": {"start_time": end - 6 * day, "model_exact": "model-0"},
        "text (common)": {"q": "node did not"},
        "text 天気 (rare)": {"q": "天気"},
        "text (not there)": {"q": "zzzz"},
        "text and six days and 5xx": {"q": "zzzz", "start_time": end - 6 * day, "status": "5xx"},
    }

    pages: list[tuple[str, dict[str, Any], int]] = [(name, values, 1) for name, values in cases.items()]
    pages += [
        ("none, page 10 000", {}, 10_000),
        ("none, last page", {}, 10**8),
        ("model, exact, page 1 000", {"model_exact": "model-0"}, 1_000),
        ("stream, page 1 000", {"stream": True}, 1_000),
    ]
    everything: list[float] = []
    for name, values, number in pages:
        taken = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            page: Page = find_page(Filters(**values), number=number)
            taken.append((time.perf_counter() - started) * 1000)
        everything += taken
        figures = {"found": float(page.total), "is_exact": float(page.is_exact), **quantiles(taken)}
        yield Sample(scale.filter_case(vendor, name), OURS, 0, figures)
    yield Sample(scale.filter_case(vendor, "all of them"), OURS, 0, quantiles(everything))


def quantiles(taken: list[float]) -> dict[str, float]:
    return {"p50_ms": percentile(taken, 0.5), "p95_ms": percentile(taken, 0.95)}


def row_bytes(rows: int) -> float:
    """What a request takes with its attempt and all indexes, without bodies. Of SQLite it is the whole file."""
    from django.db import connection

    with connection.cursor() as cursor:
        if connection.vendor == scale.POSTGRESQL:
            cursor.execute(
                "SELECT sum(pg_total_relation_size(oid)) FROM pg_class "
                "WHERE relkind = 'r' AND relname ~ '^history_request(record|attempt)_'"
            )
        else:
            cursor.execute(
                "SELECT (page_count - freelist_count) * page_size "
                "FROM pragma_page_count(), pragma_freelist_count(), pragma_page_size()"
            )
        return float(cursor.fetchone()[0]) / rows


def drop_a_day() -> dict[str, float]:
    from history import partitions

    oldest = partitions.days()[0]
    started = time.perf_counter()
    dropped = partitions.drop_before(oldest + timedelta(days=1))
    return {"drop_seconds": time.perf_counter() - started, "dropped_rows": float(dropped)}


def measure(vendor: str, rows: int, writer: Writer) -> None:
    started = time.perf_counter()
    fill(rows)
    writer.add_note("filled", f"{rows} requests in {time.perf_counter() - started:.0f} s")
    for sample in time_filters(vendor):
        writer.add(sample)
    figures = {"rows": float(rows), "row_bytes": row_bytes(rows)}
    if vendor == scale.POSTGRESQL:
        figures |= drop_a_day()
    writer.add(Sample(scale.whole_case(vendor), OURS, 0, figures))


if __name__ == "__main__":
    sys.exit(at_scale.main("history", sys.argv[1:], scale.FULL, measure))
