"""Token totals: by day and month, and they outlive rows, nodes and keys."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import time_machine
from django.test import Client

from access.models import User
from access.permissions import Permission
from history import services
from history.models import RequestRecord
from nodes.models import Node
from tests.conftest import MintKey
from tests.history.conftest import days_ago, make_entry, store

pytestmark = pytest.mark.django_db
URL = "/api/dashboard/stats/tokens"


def get(client: Client, url: str) -> Any:
    answer = client.get(url)
    assert answer.status_code == 200, answer.content
    return answer.json()


def test_totals_since_the_beginning(signed_in: Any, ken: User) -> None:
    store(make_entry(), make_entry(token_source="estimated"), make_entry(outcome="node_error", status=502))
    assert get(signed_in(ken), URL) == {
        "total_input_tokens": 21,
        "total_output_tokens": 9,
        "total_tokens": 30,
        "request_count": 3,
        "failure_count": 1,
        "estimated_count": 1,
    }


def test_no_requests_are_zeros(signed_in: Any, ken: User) -> None:
    assert set(get(signed_in(ken), URL).values()) == {0}


def test_totals_of_one_node_model_or_key(signed_in: Any, ken: User) -> None:
    store(make_entry(api_key_id=4), make_entry(node_id=2, model="qwen", served_model="qwen"), make_entry())
    client = signed_in(ken)
    counts = {query: get(client, f"{URL}?{query}")["request_count"] for query in ("node_id=2", "endpoint_id=1")}
    counts |= {query: get(client, f"{URL}?{query}")["request_count"] for query in ("model=llama", "api_key_id=4")}
    assert counts == {"node_id=2": 1, "endpoint_id=1": 2, "model=llama": 2, "api_key_id=4": 1}


@time_machine.travel("2026-03-02 12:00:00+00:00", tick=False)
def test_days_and_months_have_no_gaps(signed_in: Any, ken: User) -> None:
    store(
        make_entry(started_at=datetime(2026, 3, 2, 0, 0, tzinfo=UTC)),
        make_entry(started_at=datetime(2026, 2, 28, 23, 59, tzinfo=UTC)),
        make_entry(started_at=datetime(2025, 12, 31, 23, 59, tzinfo=UTC)),
    )
    client = signed_in(ken)
    days = get(client, f"{URL}/daily?days=4")
    assert [(day["date"], day["request_count"]) for day in days] == [
        ("2026-02-27", 0),
        ("2026-02-28", 1),
        ("2026-03-01", 0),
        ("2026-03-02", 1),
    ]
    months = get(client, f"{URL}/monthly?months=4")
    assert [(month["month"], month["total_tokens"]) for month in months] == [
        ("2025-12", 10),
        ("2026-01", 0),
        ("2026-02", 10),
        ("2026-03", 10),
    ]
    assert len(get(client, f"{URL}/daily")) == 30
    assert len(get(client, f"{URL}/monthly")) == 12


@pytest.mark.parametrize("query", ["daily?days=0", "daily?days=x", "monthly?months=121", "daily?node_id=a"])
def test_what_cannot_be_asked_is_said(signed_in: Any, ken: User, query: str) -> None:
    answer = signed_in(ken).get(f"{URL}/{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["fields"]


def test_totals_outlive_rows_and_nodes(signed_in: Any, ken: User) -> None:
    node = Node.objects.create(name="gpu-1", base_url="http://127.0.0.1:1")
    store(make_entry(node_id=node.pk, started_at=days_ago(10)), make_entry(node_id=node.pk))
    before = get(signed_in(ken), URL)
    services.prune(days=7, pause=0)
    node.delete()
    assert RequestRecord.objects.count() == 1
    assert get(signed_in(ken), URL) == before


def test_who_may_read_them(signed_in: Any, with_key: Any, mint_key: MintKey, hana: User, yui: User) -> None:
    assert Client().get(URL).status_code == 401
    assert signed_in(yui).get(URL).status_code == 403
    assert with_key(mint_key(hana, Permission.LOGS_READ)[1]).get(URL).status_code == 200
    assert with_key(mint_key(hana, Permission.METRICS_READ)[1]).get(URL).status_code == 403
