"""How fast the history page is at a million rows: `python benchmarks/history.py [rows]`.

Fills a temporary database (or keeps the one in BENCH_DATA_DIR for the next run), then times the first page, with its
total, for each filter. Prints a table of milliseconds.
"""

from __future__ import annotations

import os
import random
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
