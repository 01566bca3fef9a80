"""Each filter finds what it names, alone and together, newest first."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection

from history.filters import Filters, is_status
from history.models import RequestRecord
from history.queries import find_page
from tests.history.conftest import days_ago, make_entry, store

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def requests(db: None) -> list[RequestRecord]:
    return store(
        make_entry(request_id="old", model="llama-3", started_at=days_ago(3), api_key_id=1, client_ip="10.0.0.1"),
        make_entry(request_id="bad", model="Llama-2", node_id=2, status=502, outcome="node_error", stream=True),
        make_entry(
            request_id="rain",
            model="qwen",
            kind="embedding",
            status=404,
            outcome="client_error",
            error_message="明日の天気",
        ),
        make_entry(request_id="busy", model="qwen", node_id=2, status=429, outcome="no_route", error_code="queue_full"),
    )


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, "busy rain bad old"),
        ({"model": "llama"}, "bad old"),
        ({"model_exact": "llama-3"}, "old"),
        ({"node_id": 2}, "busy bad"),
        ({"api_key_id": 1}, "old"),
        ({"outcome": "node_error"}, "bad"),
        ({"status": "404"}, "rain"),
        ({"status": "4xx"}, "busy rain"),
        ({"status": "success"}, "old"),
        ({"status": "error"}, "busy rain bad"),
        ({"kind": "embedding"}, "rain"),
        ({"stream": True}, "bad"),
        ({"stream": False}, "busy rain old"),
        ({"start_time": days_ago(1)}, "busy rain bad"),
        ({"end_time": days_ago(1)}, "old"),
        ({"start_time": days_ago(4), "end_time": days_ago(2)}, "old"),
        ({"start_time": days_ago(9), "end_time": days_ago(8)}, ""),
        ({"request_id": "rain"}, "rain"),
        ({"client_ip": "10.0.0.1"}, "old"),
        ({"q": "天気"}, "rain"),
        ({"q": "LLAMA"}, "bad old"),
        ({"q": "10.0.0"}, "old"),
        ({"q": "Queue_Full"}, "busy"),
        ({"q": "rain"}, "rain"),
        ({"q": "%"}, ""),
        ({"q": "_a"}, ""),
        ({"node_id": 2, "status": "4xx", "q": "qw", "start_time": days_ago(1)}, "busy"),
        ({"model": "llama", "status": "4xx"}, ""),
    ],
)
def test_a_filter_finds_what_it_names(given: dict[str, Any], found: str) -> None:
    page = find_page(Filters(**given))
    assert [record.request_id for record in page.records] == found.split()
    assert page.total == len(found.split())


@pytest.mark.parametrize("text", ["", "503", "4xx", "5XX", "success", "Error"])
def test_a_status_may_be(text: str) -> None:
    assert is_status(text)


@pytest.mark.parametrize("text", ["5", "50", "999", "9xx", "xx", "٤٠٤", "failed", "4x"])
def test_a_status_may_not_be(text: str) -> None:
    assert not is_status(text)


@pytest.mark.skipif(connection.vendor != "sqlite", reason="PostgreSQL plans by what is in the table")
@pytest.mark.parametrize(
    ("given", "index"),
    [
        ({"outcome": "node_error"}, "history_req_outcome"),
        ({"status": "error"}, "history_req_outcome"),
        ({"status": "503"}, "history_req_status"),
        ({"status": "5xx"}, "history_req_status"),
    ],
)
def test_failures_are_found_in_an_index_of_failures_alone(given: dict[str, Any], index: str) -> None:
    assert index in Filters(**given).records().explain()
