"""Figures over the API: by key or session, for those who may, and true."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import pytest
from django.test import Client
from django.utils import timezone

from access.models import User
from access.permissions import Permission
from history.models import TokenTotal
from llmlb_site import __version__
from llmlb_site.lib import health, reuse
from nodes.models import NodeStatus
from routing.live import LiveView
from tests.conftest import MintKey
from tests.site.fleet import make_node, make_request

SignIn = Callable[[User], Client]


@pytest.fixture(autouse=True)
def _fresh_figures() -> Iterator[None]:
    reuse.forget_all()
    yield
    reuse.forget_all()


def read(browser: Client, path: str) -> dict[str, Any]:
    answer = browser.get(path)
    assert answer.status_code == 200, answer.content
    found: dict[str, Any] = answer.json()
    return found


def test_the_version_is_for_everyone(db: None) -> None:
    assert read(Client(), "/api/version") == {"version": __version__}


def test_the_stats(signed_in: SignIn, yui: User) -> None:
    node = make_node("left", "model-a", excluded=("model-b",), gpu_usage=40, gpu_memory_total=100, gpu_memory_used=25)
    make_node("right", "model-a", status=NodeStatus.OFFLINE)
    make_request()
    day = timezone.now().date()
    TokenTotal.objects.create(day=day, requests=10, failures=2, prompt_tokens=30, completion_tokens=12, duration_ms=500)
    with patch("routing.live.view", return_value=LiveView(in_flight={node.pk: 2}, waiting=5)):
        found = read(signed_in(yui), "/api/dashboard/stats")
    expected = {
        "total_nodes": 2,
        "online_nodes": 1,
        "offline_nodes": 1,
        "offline_runtimes": 1,
        "models": 2,
        "routable_models": 1,
        "excluded_models": 1,
        "total_requests": 10,
        "successful_requests": 8,
        "failed_requests": 2,
        "total_active_requests": 2,
        "queued_requests": 5,
        "average_response_time_ms": 50.0,
        "total_input_tokens": 30,
        "total_output_tokens": 12,
        "total_tokens": 42,
        "average_gpu_usage": 40.0,
        "average_gpu_memory_usage": 25.0,
    }
    assert {name: found[name] for name in expected} == expected
    assert found["last_request_at"] is not None


def test_the_stats_of_nothing(signed_in: SignIn, yui: User) -> None:
    found = read(signed_in(yui), "/api/dashboard/stats")
    assert found["total_nodes"] == 0
    assert found["average_response_time_ms"] is None
    assert found["last_request_at"] is None


def test_the_overview_in_one_answer(signed_in: SignIn, yui: User) -> None:
    make_node("left", "model-a", excluded=("model-b",))
    make_request(minutes_ago=0)
    found = read(signed_in(yui), "/api/dashboard/overview")
    assert len(found["history"]) == 60
    assert found["history"][-1]["success"] == 1
    assert found["nodes"][0]["model_count"] == 2
    assert found["nodes"][0]["excluded_count"] == 1
    assert "10.9.8.7" not in str(found)
    assert found["generation_time_ms"] >= 0


def test_queue_and_balancer(signed_in: SignIn, yui: User) -> None:
    node = make_node("left", "model-a", total_requests=4)
    view = LiveView(in_flight={node.pk: 2}, waiting=5, processing=2, avg_wait_ms=1.5, timeouts=3, rejected=4)
    with patch("routing.live.view", return_value=view):
        queue = read(signed_in(yui), "/api/queue/stats")
        balancer = read(signed_in(yui), "/api/load-balancer/stats")
    assert (queue["waiting"], queue["processing"], queue["avg_wait_ms"], queue["capacity"]) == (5, 2, 1.5, 100)
    assert (queue["waiting_count"], queue["processing_count"], queue["avg_wait_time_ms"]) == (5, 2, 1.5)
    assert (queue["avg_process_time_ms"], queue["timeout_count"], queue["rejected_count"]) == (0, 3, 4)
    assert balancer["mode"] == "least_busy"
    assert (balancer["nodes"][0]["in_flight"], balancer["nodes"][0]["total_requests"]) == (2, 4)


def test_the_status_names_what_does_not_work(signed_in: SignIn, yui: User) -> None:
    assert read(signed_in(yui), "/api/status")["status"] == "ok"
    health.report("worker of this test", ok=False, detail="it fell over")
    try:
        found = read(signed_in(yui), "/api/status")
    finally:
        health.forget("worker of this test")
    assert (found["status"], found["failing"]) == ("degraded", ["worker of this test"])
    assert "fell over" not in str(found)


@pytest.mark.parametrize("path", ["dashboard/stats", "dashboard/overview", "dashboard/request-history", "queue/stats"])
def test_keys_need_the_permission(path: str, hana: User, mint_key: MintKey, with_key: Callable[[str], Client]) -> None:
    may = mint_key(hana, Permission.METRICS_READ, Permission.ENDPOINTS_READ)[1]
    may_not = mint_key(hana, Permission.INFERENCE)[1]
    assert with_key(may).get(f"/api/{path}").status_code == 200
    assert with_key(may_not).get(f"/api/{path}").status_code == 403
    assert Client().get(f"/api/{path}").status_code == 401
