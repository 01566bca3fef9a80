"""`/livez`, `/readyz` and `/metrics`."""

from __future__ import annotations

from access.permissions import Permission
from llmlb_site.lib import health
from tests.routing.conftest import Fleet, bearer


async def test_alive(fleet: Fleet) -> None:
    assert (await fleet.client.get("/livez")).json() == {"status": "alive"}
    assert (await fleet.client.post("/livez")).status_code == 405


async def test_ready_degraded_and_draining(fleet: Fleet) -> None:
    response = await fleet.client.get("/readyz")
    assert (response.status_code, response.json()) == (200, {"status": "ready", "failing": []})
    health.report("worker", ok=False, detail="it died")
    try:
        response = await fleet.client.get("/readyz")
        assert (response.status_code, response.json()) == (200, {"status": "degraded", "failing": ["worker"]})
    finally:
        health.forget("worker")
    fleet.engine.draining = True
    response = await fleet.client.get("/readyz")
    assert (response.status_code, response.json()["status"]) == (503, "draining")


async def test_metrics_say_what_happened(fleet: Fleet) -> None:
    await fleet.add("model-a")
    await fleet.post()
    await fleet.post(model="nothing")
    text = (await fleet.client.get("/metrics")).text
    assert 'llmlb_requests_total{kind="chat",outcome="success"} 1.0' in text
    assert 'llmlb_requests_total{kind="chat",outcome="no_route"} 1.0' in text
    assert 'llmlb_node_routable{node="node-1"} 1.0' in text
    assert "llmlb_queue_size 0.0" in text
    assert 'llmlb_request_duration_seconds_bucket{kind="chat",le="0.05"}' in text


async def test_metrics_are_for_this_machine_or_a_key_that_may(fleet: Fleet) -> None:
    from_afar = {"X-Forwarded-For": "203.0.113.9"}
    assert (await fleet.client.get("/metrics")).status_code == 200
    assert (await fleet.client.get("/metrics", headers=from_afar)).status_code == 401
    for host, status in (("localhost:32768", 200), ("[::1]:80", 200), ("evil.example", 401), ("127.0.0.1.evil", 401)):
        assert (await fleet.client.get("/metrics", headers={"Host": host})).status_code == status
    without = await fleet.mint("without", Permission.INFERENCE)
    assert (await fleet.client.get("/metrics", headers={**from_afar, **bearer(without)})).status_code == 403
    reader = await fleet.mint("reader", Permission.METRICS_READ)
    assert (await fleet.client.get("/metrics", headers={**from_afar, **bearer(reader)})).status_code == 200
