"""The Responses API through the gateway: native where a node serves it, followed to the node that keeps a response."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from asgiref.sync import sync_to_async

from access.audit import SYSTEM
from access.models import User
from access.permissions import Permission, Role
from access.services import create_user, mint_api_key
from llmlb_site.lib.events import publish
from models_catalog.models import ModelAlias
from nodes.fake_node import Behaviour, FakeNode
from nodes.models import Node, NodeStatus
from routing.core.table import RoutingTable
from tests.routing.conftest import Fleet, bearer, eventually

RESPONSES = "/v1/responses"


async def native(fleet: Fleet, *models: str, **values: Any) -> FakeNode:
    """A node that serves the API itself, and is known to."""
    return await fleet.add(*models, apis=[RESPONSES], row={"native_apis": [RESPONSES]}, **values)


async def ask(fleet: Fleet, key: str | None = None, **body: Any) -> httpx.Response:
    return await fleet.post(RESPONSES, key=key, **{"input": "hello", **body})


async def get(fleet: Fleet, path: str, key: str | None = None) -> httpx.Response:
    return await fleet.client.get(f"{RESPONSES}/{path}", headers=bearer(key or fleet.key))


def events_of(response: httpx.Response) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: {")]
    return [json.loads(line) for line in lines]


def error_of(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


async def alias(name: str, model: str) -> None:
    def store() -> None:
        ModelAlias.objects.create(alias=name, model_id=model)
        publish("models")

    await sync_to_async(store)()


# --- native ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_native_answers_pass_untouched(fleet: Fleet, stream: bool) -> None:
    node = await native(fleet, behaviour=Behaviour(chunks=20))
    body = json.dumps({"model": "model-a", "input": "天気", "stream": stream, "x-new": {"a": 1.0}}).encode()
    direct = await asyncio.to_thread(
        httpx.post, node.url + RESPONSES, content=body, headers={"content-type": "application/json"}, trust_env=False
    )
    through = await fleet.client.post(RESPONSES, content=body, headers=bearer(fleet.key))
    assert through.content == direct.content
    assert through.headers["content-type"] == direct.headers["content-type"]
    assert "x-llmlb-translated" not in through.headers
    assert node.inferences[0].body == node.inferences[1].body == body


@pytest.mark.parametrize("stream", [False, True])
async def test_the_row_has_what_the_node_counted(fleet: Fleet, stream: bool) -> None:
    await native(fleet)
    await ask(fleet, stream=stream)
    (entry,) = await fleet.settled()
    assert (entry.kind, entry.outcome, entry.completion_tokens, entry.token_source) == (
        "responses", "success", 5, "usage",
    )  # fmt: skip


async def test_tokens_are_estimated_where_no_usage_comes(fleet: Fleet) -> None:
    await native(fleet, behaviour=Behaviour(tells_usage=False))
    for stream in (False, True):
        await ask(fleet, stream=stream)
    for entry in await fleet.settled(2):
        assert entry.token_source == "estimated"
        assert entry.completion_tokens
        assert entry.prompt_tokens


async def test_an_alias_is_restored_in_answers_and_in_every_state_of_a_stream(fleet: Fleet) -> None:
    node = await native(fleet)
    await alias("the-alias", "model-a")
    whole = await ask(fleet, model="the-alias")
    streamed = await ask(fleet, model="the-alias", stream=True)
    assert whole.json()["model"] == "the-alias"
    states = [event["response"]["model"] for event in events_of(streamed) if "response" in event]
    assert states == ["the-alias"] * 3
    assert {json.loads(request.body)["model"] for request in node.inferences} == {"model-a"}
    stored = await get(fleet, whole.json()["id"])
    assert stored.json()["model"] == "the-alias"


@pytest.mark.parametrize("mode", ["cut_mid_stream", "no_finish"])
async def test_a_stream_that_breaks_ends_with_response_failed(fleet: Fleet, mode: Any) -> None:
    await native(fleet, behaviour=Behaviour(mode=mode, cut_after=6))
    events = events_of(await ask(fleet, stream=True))
    assert events[-1]["type"] == "response.failed"
    assert events[-1]["response"]["status"] == "failed"
    assert events[-1]["response"]["error"]["code"] == "server_error"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    await eventually(fleet.excluded)
    (entry,) = await fleet.settled()
    assert entry.outcome == "broken"


async def test_an_answer_that_is_no_response_is_retried_elsewhere(fleet: Fleet) -> None:
    await native(fleet, behaviour=Behaviour(mode="not_json"))
    await native(fleet)
    for _ in range(2):
        assert (await ask(fleet)).json()["object"] == "response"
    await eventually(fleet.excluded)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"top_p": -1}, "top_p"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"stream": "yes"}, "stream"),
        ({"previous_response_id": 7}, "previous_response_id"),
    ],
)
async def test_values_that_are_certainly_wrong(fleet: Fleet, body: dict[str, Any], param: str) -> None:
    node = await native(fleet)
    response = await ask(fleet, **body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
    assert not node.inferences


# --- which nodes -----------------------------------------------------------------------------------------------------


async def test_a_node_that_no_longer_serves_it_is_asked_again_by_chat_without_blame(fleet: Fleet) -> None:
    node = await fleet.add("model-a", row={"native_apis": [RESPONSES]})
    first = await ask(fleet)
    assert (first.status_code, first.headers["x-llmlb-translated"]) == (200, "chat_completions")
    assert first.headers["x-llmlb-attempts"] == "1"
    await eventually(sync_to_async(lambda: not Node.objects.get().native_apis))
    await ask(fleet)
    assert [request.path for request in node.seen if "models" not in request.path] == [
        RESPONSES, "/v1/chat/completions", "/v1/chat/completions",
    ]  # fmt: skip
    assert not await fleet.excluded()


async def test_what_cannot_be_translated_goes_to_the_node_that_serves_it(fleet: Fleet) -> None:
    chat = await fleet.add("model-a")
    whole = await native(fleet)
    for _ in range(6):
        assert (await ask(fleet, tools=[{"type": "web_search"}])).status_code == 200
    assert (len(chat.inferences), len(whole.inferences)) == (0, 6)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"tools": [{"type": "web_search"}]}, "web_search"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "item_reference"),
    ],
)
async def test_where_nobody_can_it_is_501_and_says_what(fleet: Fleet, body: dict[str, Any], named: str) -> None:
    node = await fleet.add("model-a")
    response = await ask(fleet, **body)
    assert error_of(response) == (501, "responses_not_supported")
    assert named in response.text
    assert not node.inferences


async def test_a_model_that_writes_no_text(fleet: Fleet) -> None:
    await fleet.add("whisper-large")
    assert error_of(await ask(fleet, model="whisper-large")) == (400, "model_capability_mismatch")


async def test_a_native_node_that_turns_out_not_to_be_one_leaves_the_request_to_another(fleet: Fleet) -> None:
    """What could not be said in chat's words may still be said by the other holder."""
    await fleet.add("model-a", row={"native_apis": [RESPONSES], "weight": 1})
    good = await native(fleet)
    for _ in range(3):
        response = await ask(fleet, tools=[{"type": "web_search"}])
        assert response.status_code == 200
    assert len(good.inferences) == 3


async def test_models_say_what_may_be_asked_of_them(fleet: Fleet) -> None:
    await fleet.add("model-a", "nomic-embed-text", "bge-reranker-base")
    listed = await fleet.client.get("/v1/models", headers=bearer(fleet.key))
    apis = {model["id"]: model["supported_apis"] for model in listed.json()["data"]}
    assert apis["model-a"][:3] == ["chat_completions", "completions", "responses"]
    assert apis["nomic-embed-text"] == ["embeddings"]
    assert apis["bge-reranker-base"] == ["rerank"]


# --- kept responses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_going_on_from_a_response_leads_to_its_node(fleet: Fleet, stream: bool) -> None:
    nodes = {f"node-{number}": await native(fleet) for number in (1, 2, 3)}
    first = await ask(fleet, stream=stream)
    response_id = events_of(first)[0]["response"]["id"] if stream else first.json()["id"]
    home = nodes[first.headers["x-llmlb-node"]]
    for number in range(6):
        later = await ask(fleet, previous_response_id=response_id, input=str(number))
        assert later.json()["previous_response_id"] == response_id
        response_id = later.json()["id"]
    assert len(home.inferences) == 7


async def test_a_busy_home_is_waited_for(fleet: Fleet) -> None:
    home = await native(fleet, limit=1)
    response_id = (await ask(fleet)).json()["id"]
    other = await native(fleet)
    home.behaviour = Behaviour(latency=0.3)
    running = asyncio.create_task(ask(fleet, previous_response_id=response_id, input="one"))
    await eventually(lambda: home.in_flight == 1)
    assert (await ask(fleet, previous_response_id=response_id, input="two")).status_code == 200
    assert (await running).status_code == 200
    assert not other.inferences


async def test_reading_cancelling_and_deleting_follow_to_the_node(fleet: Fleet) -> None:
    await native(fleet)
    await native(fleet)
    made = (await ask(fleet, input="what was asked")).json()
    assert (await get(fleet, made["id"])).json() == made
    items = await get(fleet, f"{made['id']}/input_items?limit=5")
    assert items.json()["data"][0]["content"] == "what was asked"
    keeper = next(node for node in fleet.nodes if node.inferences)
    assert keeper.seen[-1].path.endswith("/input_items")
    headers = bearer(fleet.key)
    cancelled = await fleet.client.post(f"{RESPONSES}/{made['id']}/cancel", headers=headers)
    assert cancelled.json()["status"] == "cancelled"
    deleted = await fleet.client.delete(f"{RESPONSES}/{made['id']}", headers=headers)
    assert deleted.json()["deleted"] is True
    assert error_of(await get(fleet, made["id"])) == (404, "response_not_found")
    assert error_of(await ask(fleet, previous_response_id=made["id"])) == (404, "previous_response_not_found")
    entries = await fleet.settled(6)
    assert entries[1].model == "model-a"
    assert entries[1].total_tokens in (None, 0), "counted when it was made"


async def test_a_running_stream_can_be_cancelled_by_its_id(fleet: Fleet) -> None:
    await native(fleet, behaviour=Behaviour(chunks=20, chunk_interval=0.05))
    request = fleet.client.build_request(
        "POST", RESPONSES, json={"model": "model-a", "input": "x", "stream": True}, headers=bearer(fleet.key)
    )
    streaming = await fleet.client.send(request, stream=True)
    lines = streaming.aiter_lines()
    while not (line := await anext(lines)).startswith("data: "):
        pass
    response_id = json.loads(line.removeprefix("data: "))["response"]["id"]
    path = f"{RESPONSES}/{response_id}/cancel"
    assert (await fleet.client.post(path, headers=bearer(fleet.key))).status_code == 200
    await streaming.aclose()


async def test_unknown_ids_and_wrong_methods(fleet: Fleet) -> None:
    await native(fleet)
    assert error_of(await get(fleet, "resp_nothing")) == (404, "response_not_found")
    assert error_of(await ask(fleet, previous_response_id="resp_nothing")) == (404, "previous_response_not_found")
    assert (await get(fleet, "resp_nothing/other")).json()["error"]["code"] == "unknown_url"
    wrong = await fleet.client.put(f"{RESPONSES}/x", headers=bearer(fleet.key))
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET, DELETE")
    assert (await fleet.client.get(f"{RESPONSES}/x")).status_code == 401


async def test_a_response_is_its_owners(fleet: Fleet) -> None:
    node = await native(fleet)

    def ken() -> User:
        return create_user(username="ken", role=Role.OPERATOR, password="a long walk along the river", actor=SYSTEM)[0]

    def mint(owner: User) -> str:
        return mint_api_key(owner=owner, name="kens", permissions=[Permission.INFERENCE], actor=SYSTEM)[1]

    kens = await sync_to_async(lambda: mint(ken()))()
    mine = await fleet.mint("another of mine")
    made = (await ask(fleet)).json()["id"]
    assert (await get(fleet, made, key=mine)).status_code == 200
    seen = len(node.seen)
    assert error_of(await get(fleet, made, key=kens)) == (404, "response_not_found")
    assert error_of(await ask(fleet, key=kens, previous_response_id=made)) == (404, "previous_response_not_found")
    narrow = await fleet.mint("narrow", allowed_models=["model-b"])
    assert error_of(await get(fleet, made, key=narrow)) == (404, "response_not_found")
    assert len(node.seen) == seen, "the node is not even asked"


async def test_the_node_is_away_or_gone(fleet: Fleet) -> None:
    await native(fleet)
    made = (await ask(fleet)).json()["id"]
    await native(fleet)

    def change(status: str) -> None:
        Node.objects.filter(name="node-1").update(status=status)
        publish("nodes")

    await sync_to_async(change)(NodeStatus.OFFLINE)
    assert error_of(await ask(fleet, previous_response_id=made)) == (503, "no_capable_nodes")
    assert error_of(await get(fleet, made)) == (503, "no_capable_nodes")
    await sync_to_async(change)(NodeStatus.ONLINE)
    assert (await ask(fleet, previous_response_id=made)).status_code == 200

    def delete() -> None:
        Node.objects.filter(name="node-1").delete()
        publish("nodes")
        publish("models")

    await sync_to_async(delete)()
    assert error_of(await ask(fleet, previous_response_id=made)) == (404, "previous_response_not_found")
    assert error_of(await get(fleet, made)) == (404, "response_not_found")


async def test_the_node_goes_while_the_request_arrives(fleet: Fleet) -> None:
    await native(fleet)
    made = (await ask(fleet)).json()["id"]

    async def slowly() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(0.1)
        fleet.engine._install(RoutingTable.build([], []))
        yield b"}"

    response = await fleet.client.post(f"{RESPONSES}/{made}/cancel", content=slowly(), headers=bearer(fleet.key))
    assert error_of(response) == (404, "response_not_found")
    (_, entry) = await fleet.settled(2)
    assert (entry.outcome, entry.status) == ("client_error", 404)


async def test_a_node_that_has_forgotten_says_so_itself_and_keeps_its_name(fleet: Fleet) -> None:
    node = await native(fleet)
    made = (await ask(fleet)).json()["id"]
    node.responses = type(node.responses)()
    response = await ask(fleet, previous_response_id=made)
    assert response.status_code == 404
    assert made in response.json()["error"]["message"]
    assert await sync_to_async(lambda: Node.objects.get().native_apis)() == [RESPONSES]
    assert not await fleet.excluded()


async def test_a_dead_keeper_is_an_error_in_words(fleet: Fleet) -> None:
    node = await native(fleet)
    made = (await ask(fleet)).json()["id"]
    await node.kill()
    assert error_of(await get(fleet, made)) == (502, "node_connection_error")
