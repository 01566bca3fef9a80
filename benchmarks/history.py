"""How fast the history page is at a million rows: `python benchmarks/history.py [rows]`.

Fills a temporary database (or keeps the one in BENCH_DATA_DIR for the next run), then times the first page, with its
total, for each filter. Prints a table of milliseconds.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ["LLMLB_DATA_DIR"] = os.environ.get("BENCH_DATA_DIR") or tempfile.mkdtemp(prefix="llmlb-bench-")
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmlb_site.settings")

MODELS = [f"model-{n}" for n in range(20)]
SPAN = timedelta(days=7)
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
    from django.core.management import call_command

    from history.models import RequestRecord
    from history.writer import Frame, write

    call_command("migrate", verbosity=0)
    missing = rows - RequestRecord.objects.count()
    source = entries(missing, datetime.now(UTC))
    started = time.perf_counter()
    while batch := list(islice(source, 1000)):
        write(Frame(batch, [None] * len(batch)))
    if missing > 0:
        print(f"{missing} rows written in {time.perf_counter() - started:.0f} s")


def time_filters(repeats: int = 7) -> None:
    """First page with its total, through the same function as page and API; the worst of the seven is the cold one."""
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
        "six days and a model": {"start_time": end - 6 * day, "model_exact": "model-0"},
        "text (common)": {"q": "node did not"},
        "text 天気 (50 rows)": {"q": "天気"},
        "text (not there)": {"q": "zzzz"},
        "text and six days and 5xx": {"q": "zzzz", "start_time": end - 6 * day, "status": "5xx"},
    }

    def timed(**options: Any) -> tuple[float, float, Page]:
        taken = []
        for _ in range(repeats):
            started = time.perf_counter()
            page = find_page(**options)
            taken.append((time.perf_counter() - started) * 1000)
        return statistics.median(taken), max(taken), page

    print(f"{'filter':32}{'found':>10}{'p50 ms':>9}{'worst ms':>10}")
    for name, values in cases.items():
        p50, worst, page = timed(filters=Filters(**values))
        print(f"{name:32}{page.total:>10}{p50:>9.1f}{worst:>10.1f}")
    for name, values, number in (
        ("none, page 10 000", {}, 10_000),
        ("none, last page", {}, 10**8),
        ("model, exact, page 5 000", {"model_exact": "model-0"}, 5_000),
        ("stream, page 9 000", {"stream": True}, 9_000),
    ):
        p50, worst, page = timed(filters=Filters(**values), number=number)
        print(f"{name:32}{page.total:>10}{p50:>9.1f}{worst:>10.1f}")


def main() -> None:
    import django
    from django.db import connection

    django.setup()
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    fill(rows)
    print(f"{rows} rows, {connection.vendor}")
    time_filters()


if __name__ == "__main__":
    main()
