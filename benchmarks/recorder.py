"""What recording costs: `python -m benchmarks.recorder [--postgresql] [--rows N]`, in a database of its own.

For each way to keep bodies (1 KB asked, 1 KB answered): how many rows a second it keeps up with and CPU of the whole
process a row, as fast as it goes; then at 5 000 rows a second CPU, and how long `put` holds the event loop up. Prints
the goals, and keeps everything in `benchmarks/results/`.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
import uuid
from datetime import UTC, datetime
from typing import Any

from benchmarks import at_scale
from benchmarks.side_by_side import scale
from benchmarks.side_by_side.bodies import prose
from benchmarks.side_by_side.results import Writer
from benchmarks.side_by_side.samples import OURS, Sample, percentile

ROWS = 20_000
ROUNDS = 5
MODES = ("none", "plain", scale.ENCRYPTED)
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


def record(mode: str, rows: int, *, per_second: int | None) -> tuple[float, float, list[float]]:
    """Returns: CPU µs a row, rows a second until all are in the database, how long each `put` took in µs."""
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
    return (time.process_time() - cpu) / rows * 1e6, rows / seconds, took


def measure(vendor: str, rows: int, writer: Writer) -> None:
    """The ways in turns, so that what disturbs one round disturbs all."""
    for round in range(ROUNDS):
        for mode in MODES:
            cpu, per_second, _ = record(mode, rows, per_second=None)
            paced, _, put = record(mode, rows // 2, per_second=scale.PACE)
            figures = {
                "cpu_us": cpu,
                "per_second": per_second,
                "paced_cpu_us": paced,
                "put_mean_us": statistics.fmean(put),
                "put_p50_us": percentile(put, 0.5),
                "put_p99_us": percentile(put, 0.99),
                "put_max_us": max(put),
            }
            writer.add(Sample(scale.recorder_case(vendor, mode), OURS, round, figures))


if __name__ == "__main__":
    sys.exit(at_scale.main("recorder", sys.argv[1:], dict.fromkeys(scale.FULL, ROWS), measure))
