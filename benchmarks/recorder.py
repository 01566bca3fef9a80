"""What recording costs: `python benchmarks/recorder.py [rows]`, on LLMLB_DATABASE_URL or a fresh SQLite file.

For each way to keep bodies (1 KB asked, 1 KB answered): CPU of the whole process a request, as fast as it goes and at
2 000 requests a second, how many a second it keeps up with, and how long `put` holds the event loop up.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.side_by_side.bodies import prose

_TEMPORARY = tempfile.TemporaryDirectory(prefix="llmlb-bench-")  # gone at the end
os.environ["LLMLB_DATA_DIR"] = os.environ.get("BENCH_DATA_DIR") or _TEMPORARY.name
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmlb_site.settings")

_dice = random.Random(7)


def body(name: str) -> bytes:
    """About 1 KB of JSON with prose in it."""
    return json.dumps({"model": "model-1", name: [{"role": "user", "content": prose(1000, _dice)}]}).encode()


BODIES = [(body("messages"), body("choices")) for _ in range(200)]


def entries(count: int, *, bodies: bool) -> list[Any]:
    from history.entries import AttemptEntry, RequestEntry

    return [
        RequestEntry(
            request_id=uuid.uuid4().hex,
            started_at=datetime.now(UTC),
            kind="chat",
            outcome="success",
            status=200,
            duration_ms=812.5,
            first_byte_ms=80.0,
            model=f"model-{number % 7}",
            served_model=f"model-{number % 7}",
            node_id=number % 5 + 1,
            node_name=f"node-{number % 5 + 1}",
            api_key_id=number % 11 + 1,
            api_key_name="a key",
            client_ip="10.0.0.1",
            prompt_tokens=200,
            completion_tokens=200,
            total_tokens=400,
            token_source="usage",
            attempts=[
                AttemptEntry(
                    node_id=number % 5 + 1,
                    node_name=f"node-{number % 5 + 1}",
                    selection_reason="least_busy",
                    status=200,
                    duration_ms=810.0,
                )
            ],
            request_body=BODIES[number % 200][0] if bodies else b"",
            response_body=BODIES[number % 200][1] if bodies else b"",
        )
        for number in range(count)
    ]


def measure(mode: str, rows: int, *, per_second: int | None) -> tuple[float, float, list[float]]:
    """Returns: CPU µs a row, rows a second, how long each `put` took in µs, the shortest first."""
    from history.recorder import Recorder

    ready = entries(rows, bodies=mode != "none")
    recorder = Recorder(payloads=mode)
    recorder.start()
    time.sleep(0.5)
    cpu, started, took = time.process_time(), time.perf_counter(), []
    for number, entry in enumerate(ready, start=1):
        before = time.perf_counter()
        recorder.put(entry)
        took.append((time.perf_counter() - before) * 1e6)
        if per_second and number % 20 == 0:
            time.sleep(max(0.0, started + number / per_second - time.perf_counter()))
    assert recorder.stop(120)
    seconds = time.perf_counter() - started
    assert recorder.health().written == rows, recorder.health()
    return (time.process_time() - cpu) / rows * 1e6, rows / seconds, sorted(took)


def main() -> None:
    import django
    from django.core.management import call_command
    from django.db import connection

    django.setup()
    call_command("migrate", verbosity=0)
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    print(f"{rows} rows, {connection.vendor}")
    print(
        f"{'bodies':12}{'µs a row':>10}{'rows/s':>9}{'µs a row at 2 000/s':>22}{'put p50, µs':>14}{'p99':>8}{'max':>9}"
    )
    for mode in ("none", "plain", "encrypted"):
        fast, speed, _ = measure(mode, rows, per_second=None)
        paced, _, put = measure(mode, rows // 2, per_second=2000)
        p50, p99 = put[len(put) // 2], put[len(put) * 99 // 100]
        print(f"{mode:12}{fast:>10.1f}{speed:>9.0f}{paced:>22.1f}{p50:>14.1f}{p99:>8.1f}{put[-1]:>9.0f}")


if __name__ == "__main__":
    main()
