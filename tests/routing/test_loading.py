"""A node that is loading the model: busy, not broken. Others are asked meanwhile, then it is asked again."""

from __future__ import annotations

from typing import Any

import pytest

from nodes.fake_node import Behaviour
from tests.routing.conftest import MakeFleet, eventually

OURS = {"error": {"message": "being loaded", "type": "service_unavailable", "param": None, "code": "model_loading"}}
LLAMA_CPP = {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}


def loading(body: Any, times: int | None = None) -> Behaviour:
    return Behaviour(status=503, error_body=body, times=times)


@pytest.mark.parametrize("body", [OURS, LLAMA_CPP])
async def test_another_node_is_asked_and_nothing_is_excluded(make_fleet: MakeFleet, body: Any) -> None:
    fleet = await make_fleet()
    first = await fleet.add("model-a", behaviour=loading(body))
    await fleet.add("model-a")
    answers = [await fleet.post() for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert {answer.headers["x-llmlb-node"] for answer in answers} == {"node-2"}
    entries = await fleet.settled(2)
    assert first.inferences
    assert {entry.outcome for entry in entries} == {"success"}
    assert not any(attempt.excluded for entry in entries for attempt in entry.attempts)


async def test_a_node_alone_is_asked_again_until_it_has_loaded(make_fleet: MakeFleet) -> None:
    fleet = await make_fleet()
    await fleet.add("model-a", behaviour=loading(OURS, times=2))
    answer = await fleet.post()
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-llmlb-attempts"] == "3"
    (entry,) = await fleet.settled()
    assert [attempt.excluded for attempt in entry.attempts] == [False, False, False]


async def test_a_load_that_takes_longer_than_the_queue_is_told_to_the_client(make_fleet: MakeFleet) -> None:
    fleet = await make_fleet(queue_timeout=1.5)
    await fleet.add("model-a", behaviour=loading(OURS))
    answer = await fleet.post()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_loading")
    (entry,) = await fleet.settled()
    assert not any(attempt.excluded for attempt in entry.attempts)


async def test_any_other_503_is_the_nodes_fault(make_fleet: MakeFleet) -> None:
    fleet = await make_fleet()
    await fleet.add("model-a", behaviour=loading({"error": {"message": "no memory", "code": "model_failed"}}))
    answer = await fleet.post()
    assert answer.status_code == 503
    await eventually(fleet.excluded)
