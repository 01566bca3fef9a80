"""Requests as the gateway would report them, and a recorder that ends with its test."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from history.entries import AttemptEntry, RequestEntry
from history.models import RequestRecord
from history.payloads import seal
from history.recorder import Recorder
from history.writer import Frame, write

StartRecorder = Callable[..., Recorder]
_numbers = itertools.count(1)

PROMPT = {"model": "llama", "messages": [{"role": "user", "content": "What is the capital of Japan?"}], "stream": False}
ANSWER = {
    "id": "chatcmpl-1",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Tokyo."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
}


def make_entry(**values: Any) -> RequestEntry:
    """One good chat of ten tokens on node 1, but for `values`."""
    given: dict[str, Any] = {
        "request_id": f"req-{next(_numbers)}",
        "started_at": datetime.now(UTC),
        "kind": "chat",
        "outcome": "success",
        "status": 200,
        "duration_ms": 120.0,
        "model": "llama",
        "served_model": "llama",
        "node_id": 1,
        "node_name": "gpu-1",
        "prompt_tokens": 7,
        "completion_tokens": 3,
        "total_tokens": 10,
        "token_source": "usage",
        **values,
    }
    if "attempts" not in given and given["node_id"] is not None:
        given["attempts"] = [attempt_of(given)]
    return RequestEntry(**given)


def attempt_of(given: dict[str, Any]) -> AttemptEntry:
    return AttemptEntry(
        node_id=given["node_id"],
        node_name=given["node_name"],
        selection_reason="least_busy",
        status=given["status"],
        duration_ms=given["duration_ms"],
    )


def with_bodies(**values: Any) -> RequestEntry:
    bodies = {"request_body": json.dumps(PROMPT).encode(), "response_body": json.dumps(ANSWER).encode()}
    return make_entry(**{**bodies, **values})


def store(*entries: RequestEntry, payloads: str = "encrypted") -> list[RequestRecord]:
    """Write these at once, without the recorder's threads. Returns their rows, oldest first."""
    write(Frame(list(entries), seal(entries, payloads)))
    return list(reversed(RequestRecord.objects.order_by("-id")[: len(entries)]))


def eventually(holds: Callable[[], Any], *, within: float = 5.0) -> None:
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline, f"not within {within} s"
        time.sleep(0.02)


def days_ago(days: float) -> datetime:
    return timezone.now() - timedelta(days=days)


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def start_recorder(spool: Path, transactional_db: None) -> Iterator[StartRecorder]:
    """`start_recorder(payloads="none")`: a running recorder; it is stopped when the test ends."""
    running: list[Recorder] = []

    def start(**values: Any) -> Recorder:
        recorder = Recorder(directory=spool, **values)
        recorder.start()
        running.append(recorder)
        return recorder

    yield start
    for recorder in running:
        recorder.stop(10)
