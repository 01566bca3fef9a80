"""A node that fails: retried elsewhere before the first byte, told honestly after it, taken out for that model."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.test import Client

from llmlb_site.lib.upstream.base import Target
from nodes.fake_node import Behaviour
from routing.gateway.answered import without_address
from tests.routing.conftest import Fleet, MakeFleet, eventually

FAULTS: dict[str, dict[str, Any]] = {
    "connection refused": {},
    "hang": {"mode": "hang", "only_models": ("model-a",)},
    "garbage": {"mode": "garbage"},
    "cut before the head": {"mode": "cut_before_headers"},
    "reset before the head": {"mode": "cut_before_headers", "reset": True},
    "cut in the body": {"mode": "cut_in_body", "cut_after": 0},
    "web page": {"mode": "not_json"},
    "500": {"status": 500},
    "503": {"status": 503},
    "no such model": {"mode": "unknown_model_404"},
}


async def two_nodes(fleet: Fleet, fault: str) -> None:
    """The first of the two, which is asked first, has the fault."""
    bad = await fleet.add("model-a", "model-b")
    await fleet.add("model-a", "model-b")
    if fault == "connection refused":
        await bad.kill()
    else:
        bad.behaviour = Behaviour(**FAULTS[fault])


async def ask_until_the_bad_one_was_asked(fleet: Fleet, **body: Any) -> None:
    for _ in range(2):
        response = await fleet.post(**body)
        assert response.status_code == 200, response.text


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_node_fault_is_retried_elsewhere_and_excludes_the_model_there(
    make_fleet: MakeFleet, fault: str, stream: bool
) -> None:
    fleet = await make_fleet(connect_timeout=1)
    await two_nodes(fleet, fault)
    if fault == "hang":
        fleet.shorten_timeouts(0.3)
    await ask_until_the_bad_one_was_asked(fleet, stream=stream)
    await eventually(fleet.excluded)
    assert await fleet.excluded() == {"node-1"}
    retried = [entry for entry in await fleet.settled(2) if len(entry.attempts) == 2]
    assert [attempt.excluded for attempt in retried[0].attempts] == [True, False]
    assert retried[0].outcome == "success"


async def test_the_nodes_other_models_are_still_routed(fleet: Fleet) -> None:
    await two_nodes(fleet, "500")
    await ask_until_the_bad_one_was_asked(fleet)
    fleet.nodes[0].behaviour = Behaviour()
    asked = len(fleet.nodes[0].inferences)
    for _ in range(4):
        await fleet.post(model="model-a")
        await fleet.post(model="model-b")
    served = fleet.nodes[0].inferences[asked:]
    assert served
    assert all(b'"model-b"' in request.body for request in served)


@pytest.mark.parametrize("status", [400, 403, 404, 413, 422])
async def test_a_clients_fault_is_passed_on_and_excludes_nothing(fleet: Fleet, status: int) -> None:
    for _ in range(2):
        await fleet.add("model-a", behaviour=Behaviour(status=status, error_body={"error": {"message": "your fault"}}))
    response = await fleet.post()
    assert (response.status_code, response.json()) == (status, {"error": {"message": "your fault"}})
    assert sum(len(node.inferences) for node in fleet.nodes) == 1, "not retried"
    assert not await fleet.excluded()
    assert (await fleet.settled())[0].outcome == "client_error"


async def test_any_error_excludes_where_the_operator_wants_the_seeds_letter(make_fleet: MakeFleet) -> None:
    fleet = await make_fleet(exclusion_trigger="any_error")
    await fleet.add("model-a", behaviour=Behaviour(status=400))
    assert (await fleet.post()).status_code == 400
    await eventually(fleet.excluded)


async def test_a_busy_node_is_left_for_another_without_blame(fleet: Fleet) -> None:
    await fleet.add("model-a", behaviour=Behaviour(mode="busy_429"))
    await fleet.add("model-a")
    for _ in range(3):
        assert (await fleet.post()).status_code == 200
    assert not await fleet.excluded()


async def test_the_last_nodes_own_error_is_what_the_client_reads(fleet: Fleet) -> None:
    await fleet.add("model-a", behaviour=Behaviour(status=500, error_body={"error": {"message": "out of memory"}}))
    response = await fleet.post()
    assert (response.status_code, response.json()["error"]["message"]) == (500, "out of memory")


async def test_an_error_page_is_put_into_our_words(fleet: Fleet) -> None:
    await fleet.add("model-a", behaviour=Behaviour(status=502, error_body="<html>Traceback at 127.0.0.1</html>"))
    response = await fleet.post()
    assert response.status_code == 502
    assert response.json()["error"]["code"] == "node_error"
    assert "Traceback" not in response.text


async def test_no_error_names_the_address_of_a_node(fleet: Fleet) -> None:
    node = await fleet.add("model-a")
    node.behaviour = Behaviour(status=500, error_body={"error": {"message": f"see {node.url}/trace"}})
    response = await fleet.post()
    assert str(node.port) not in response.text
    assert "127.0.0.1" not in response.text


@pytest.mark.parametrize(
    ("host", "said", "told"),
    [
        ("10.0.0.7", "http://10.0.0.7:8000/v1 at 10.0.0.7.", "http://node/v1 at node."),
        ("10.0.0.7", "110.0.0.7 and 10.0.0.70", "110.0.0.7 and 10.0.0.70"),
        ("::1", "http://[::1]:8000/v1, ::1", "http://node/v1, node"),
        ("gpu.example", "GPU.example:80 gpu.example.org", "node gpu.example.org"),
        ("ollama", "http://ollama:11434 ollama:1: pull ollama, ollama3", "http://node node: pull ollama, ollama3"),
    ],
)
def test_of_an_error_only_the_address_is_hidden(host: str, said: str, told: str) -> None:
    target = Target(f"http://[{host}]:8000" if ":" in host else f"http://{host}:8000")
    assert without_address(said.encode(), target).decode() == told


@pytest.mark.parametrize(
    ("behaviour", "status", "code"),
    [
        (Behaviour(mode="cut_before_headers"), 502, "node_connection_error"),
        (Behaviour(mode="hang", only_models=("model-a",)), 504, "node_timeout"),
    ],
)
async def test_when_every_attempt_failed_without_an_answer(
    fleet: Fleet, behaviour: Behaviour, status: int, code: str
) -> None:
    await fleet.add("model-a", behaviour=behaviour)
    fleet.shorten_timeouts(0.3)
    response = await fleet.post()
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert (await fleet.settled())[0].outcome == "node_error"


async def test_no_more_attempts_than_configured(make_fleet: MakeFleet) -> None:
    fleet = await make_fleet(attempts=3)
    for _ in range(5):
        await fleet.add("model-a", behaviour=Behaviour(mode="cut_before_headers"))
    response = await fleet.post()
    assert response.status_code == 502
    assert response.headers["x-llmlb-attempts"] == "3"
    assert len({attempt.node_id for attempt in (await fleet.settled())[0].attempts}) == 3


# --- streams that break ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("behaviour", [Behaviour(mode="cut_mid_stream"), Behaviour(mode="cut_mid_stream", reset=True)])
async def test_a_stream_that_breaks_ends_with_an_error_and_without_done(fleet: Fleet, behaviour: Behaviour) -> None:
    broken = await fleet.add("model-a", behaviour=behaviour)
    await fleet.add("model-a", behaviour=behaviour)
    events = await fleet.events()
    assert json.loads(events[-1])["error"]["code"] == "node_connection_error"
    assert "[DONE]" not in events
    assert sum(len(node.inferences) for node in fleet.nodes) == 1, "nothing is retried after the first byte"
    await eventually(fleet.excluded)
    (entry,) = await fleet.settled()
    assert (entry.outcome, entry.status, entry.error_code) == ("broken", 200, "node_connection_error")
    assert broken.in_flight == 0


async def test_done_without_a_finish_reason_is_a_broken_stream(fleet: Fleet) -> None:
    await fleet.add("model-a", behaviour=Behaviour(mode="no_finish"))
    events = await fleet.events()
    assert "[DONE]" not in events
    assert "error" in json.loads(events[-1])
    await eventually(fleet.excluded)


async def test_a_stream_that_breaks_before_its_first_event_is_retried(fleet: Fleet) -> None:
    await fleet.add("model-a", behaviour=Behaviour(mode="cut_mid_stream", cut_after=0))
    await fleet.add("model-a")
    for _ in range(2):
        events = await fleet.events()
        assert events[-1] == "[DONE]"


async def test_silence_in_a_stream_is_a_time_out(fleet: Fleet) -> None:
    await fleet.add("model-a", behaviour=Behaviour(chunks=10, chunk_interval=2))
    fleet.shorten_timeouts(0.3)
    events = await fleet.events()
    assert json.loads(events[-1])["error"]["code"] == "node_timeout"


# --- poison ----------------------------------------------------------------------------------------------------------


async def test_a_poison_request_does_not_empty_the_fleet(fleet: Fleet) -> None:
    for _ in range(3):
        await fleet.add("model-a", behaviour=Behaviour(status=500))
    assert (await fleet.post()).status_code == 500
    (entry,) = await fleet.settled()
    assert entry.poison
    assert [attempt.excluded for attempt in entry.attempts] == [False, False]
    await fleet.engine.control.catch_up(timeout=5)
    await eventually(lambda: len(fleet.engine.table.holders.get("model-a", ())) == 3)
    assert not await fleet.excluded()


async def test_two_that_die_are_not_poison(fleet: Fleet) -> None:
    for _ in range(2):
        await fleet.add("model-a", behaviour=Behaviour(mode="cut_before_headers"))
    await fleet.post()
    await eventually(fleet.excluded)
    assert not (await fleet.settled())[0].poison


async def test_where_every_node_answers_errors_few_requests_are_tried_twice_and_no_node_is_blamed(
    make_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("routing.core.retries.MOST", 5.0)
    fleet = await make_fleet()
    for _ in range(2):
        await fleet.add("model-a", behaviour=Behaviour(status=500))
    for _ in range(100):
        await fleet.post()
        await eventually(lambda: len(fleet.engine.table.holders.get("model-a", ())) == 2)
    entries = await fleet.settled(100)
    assert {entry.status for entry in entries} == {500}
    assert sum(len(entry.attempts) for entry in entries) == pytest.approx(100 + 5 + 100 * 0.1, abs=1)
    await eventually(lambda: not fleet.engine._pending)
    assert not await fleet.excluded()


# --- under load ------------------------------------------------------------------------------------------------------


async def test_a_node_killed_under_fifty_requests_costs_no_client_anything(fleet: Fleet) -> None:
    doomed = await fleet.add("model-a", behaviour=Behaviour(latency=0.2))
    await fleet.add("model-a", behaviour=Behaviour(latency=0.05))
    requests = [asyncio.create_task(fleet.post()) for _ in range(50)]
    await eventually(lambda: doomed.in_flight > 10)
    await doomed.kill()
    responses = await asyncio.gather(*requests)
    assert {response.status_code for response in responses} == {200}
    assert {response.headers["x-llmlb-attempts"] for response in responses} == {"1", "2"}


async def test_a_hundred_for_the_metal_model_reach_the_metal_node_alone(fleet: Fleet) -> None:
    metal = await fleet.add("metal-only", "both")
    cuda = await fleet.add("both")
    responses = await asyncio.gather(*[fleet.post(model="metal-only") for _ in range(100)])
    assert {response.status_code for response in responses} == {200}
    assert (len(metal.inferences), len(cuda.inferences)) == (100, 0)


# --- what an operator sees and does right after a failure ------------------------------------------------------------


@pytest.fixture
async def failed(fleet: Fleet, with_key: Callable[[str], Client]) -> Fleet:
    """A model has just failed on the only node, and the database is slow to take that."""
    await sync_to_async(with_key(fleet.key).get)("/api/nodes")  # the first request is a slow one
    await fleet.add("model-a", behaviour=Behaviour(status=500, times=1, only_models=("model-a",)))
    fleet.engine.control.do(lambda: time.sleep(0.2), what="a slow job")
    assert (await fleet.post()).status_code == 500
    return fleet


async def test_an_exclusion_is_seen_at_once(failed: Fleet, with_key: Callable[[str], Client]) -> None:
    (node,) = (await sync_to_async(with_key(failed.key).get)("/api/nodes")).json()["nodes"]
    assert [excluded["model"] for excluded in node["excluded_models"]] == ["model-a"]


@pytest.mark.parametrize("act", ["reinclude", "re-register"])
async def test_an_exclusion_can_be_undone_at_once(failed: Fleet, with_key: Callable[[str], Client], act: str) -> None:
    (node_id,) = failed.engine.table.nodes
    path = f"/api/nodes/{node_id}/{act}"
    done = await sync_to_async(with_key(failed.key).post)(path, {}, content_type="application/json")
    assert done.status_code == 200
    assert (await failed.post()).status_code == 200
    assert not await failed.excluded()
