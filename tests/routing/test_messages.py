"""`/v1/messages`: passed through to nodes that speak it, translated to chat for the others, with Anthropic's errors."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from asgiref.sync import sync_to_async

from llmlb_site.lib.events import publish
from models_catalog.models import ModelAlias
from nodes.fake.messages import PATHS
from nodes.fake_node import Behaviour, FakeNode
from nodes.models import Node
from tests.routing.conftest import Fleet, MakeFleet, eventually

MESSAGES = "/v1/messages"
COUNT = "/v1/messages/count_tokens"
VERSION = {"anthropic-version": "2023-06-01"}
CALLS = {
    "reasoning_content": "The user wants the weather.",
    "content": "Let me look.",
    "tool_calls": [
        {
            "id": f"call_{city}",
            "type": "function",
            "function": {"name": "weather", "arguments": json.dumps({"city": city, "days": [1, 2]})},
        }
        for city in ("Tokyo", "Zürich")
    ],
}
TOOL = {"name": "weather", "description": "Looks outside", "input_schema": {"type": "object", "properties": {}}}


async def native(fleet: Fleet, *models: str, **values: Any) -> FakeNode:
    return await fleet.add(*models, apis=PATHS, row={"native_apis": sorted(PATHS)}, **values)


async def ask(fleet: Fleet, path: str = MESSAGES, *, headers: dict[str, str] = VERSION, **body: Any) -> httpx.Response:
    body = {"model": "model-a", "max_tokens": 64, "messages": [{"role": "user", "content": "hello there"}], **body}
    return await fleet.client.post(path, json=body, headers={**headers, "x-api-key": fleet.key})


async def stream(fleet: Fleet, **body: Any) -> list[dict[str, Any]]:
    response = await ask(fleet, stream=True, **body)
    assert response.headers["content-type"].startswith("text/event-stream"), response.text
    return events_in(response.text)


def events_in(text: str) -> list[dict[str, Any]]:
    """The data of every event; its name is the type in the data."""
    events = []
    for block in text.strip().split("\n\n"):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        events.append(event)
    return events


def sent(node: FakeNode) -> dict[str, Any]:
    """The last inference that a node was asked for."""
    body: dict[str, Any] = json.loads(node.inferences[-1].body)
    return body


async def alias(name: str, model: str) -> None:
    def make() -> None:
        ModelAlias.objects.create(alias=name, model_id=model)
        publish("models")

    await sync_to_async(make)()


def error_of(response: httpx.Response) -> tuple[int, str]:
    document = response.json()
    assert document["type"] == "error"
    assert document["error"]["message"]
    return response.status_code, document["error"]["type"]


# --- translated -------------------------------------------------------------------------------------------------------


async def test_a_whole_answer_is_translated(fleet: Fleet) -> None:
    node = await fleet.add("model-a")
    response = await ask(fleet, system="Be brief.", stop_sequences=["###"], top_k=7, metadata={"user_id": "u1"})
    assert response.headers["x-llmlb-translated"] == "chat_completions"
    assert response.headers["request-id"] == response.headers["x-request-id"]
    message = response.json()
    assert message.pop("id").startswith("msg_")
    assert message == {
        "type": "message",
        "role": "assistant",
        "model": "model-a",
        "content": [{"type": "text", "text": "fake-0 fake-1 fake-2 fake-3 fake-4 "}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 4,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 5,
        },
    }
    assert sent(node) == {
        "model": "model-a",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello there"}],
        "max_tokens": 64,
        "top_k": 7,
        "stop": ["###"],
        "user": "u1",
    }
    (entry,) = await fleet.settled()
    assert (entry.kind, entry.outcome, entry.prompt_tokens, entry.completion_tokens) == ("messages", "success", 4, 5)


async def test_a_stream_has_every_event_in_order(fleet: Fleet) -> None:
    await fleet.add("model-a", behaviour=Behaviour(says=CALLS))
    events = await stream(fleet, tools=[TOOL], thinking={"type": "enabled", "budget_tokens": 1024})
    order = [event["type"] for event in events if event["type"] != "content_block_delta"]
    blocks = ["content_block_start", "content_block_stop"] * 4
    assert order == ["message_start", "ping", *blocks, "message_delta", "message_stop"]
    opening = events[0]["message"]
    assert opening["content"] == []
    assert opening["stop_reason"] is None
    assert opening["usage"]["input_tokens"] > 0
    assert events[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert events[-2]["usage"]["input_tokens"] == 2
    assert gathered(events) == [
        {"type": "thinking", "thinking": CALLS["reasoning_content"], "signature": ""},
        {"type": "text", "text": CALLS["content"]},
        {"type": "tool_use", "id": "call_Tokyo", "name": "weather", "input": {"city": "Tokyo", "days": [1, 2]}},
        {"type": "tool_use", "id": "call_Zürich", "name": "weather", "input": {"city": "Zürich", "days": [1, 2]}},
    ]


def gathered(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The content blocks that a client puts together. Blocks follow one another."""
    blocks: list[dict[str, Any]] = []
    pieces: list[str] = []
    for event in events:
        if event["type"] == "content_block_start":
            assert event["index"] == len(blocks)
            blocks.append(event["content_block"])
            pieces = []
        elif event["type"] == "content_block_delta":
            assert event["index"] == len(blocks) - 1
            kind = event["delta"]["type"]
            pieces.append(event["delta"][{"input_json_delta": "partial_json"}.get(kind, kind.removesuffix("_delta"))])
        elif event["type"] == "content_block_stop":
            block, text = blocks[event["index"]], "".join(pieces)
            name = {"tool_use": "input"}.get(block["type"], block["type"])
            block[name] = json.loads(text) if name == "input" else text
    return blocks


async def test_thinking_is_shown_only_where_it_was_asked_for(fleet: Fleet) -> None:
    await fleet.add("model-a", behaviour=Behaviour(says={"reasoning": "hm", "content": "Yes."}))
    plain = (await ask(fleet)).json()
    asked = (await ask(fleet, thinking={"type": "adaptive"})).json()
    assert [block["type"] for block in plain["content"]] == ["text"]
    assert [block["type"] for block in asked["content"]] == ["thinking", "text"]
    assert [block["type"] for block in gathered(await stream(fleet))] == ["text"]


@pytest.mark.parametrize(
    ("says", "ends", "reason", "sequence"),
    [
        ({"content": "x"}, {"finish_reason": "length"}, "max_tokens", None),
        ({"content": "x"}, {"finish_reason": "content_filter"}, "refusal", None),
        ({"content": "x"}, {"stop_reason": "###"}, "stop_sequence", "###"),
        ({"content": "x"}, {"stop_reason": 7}, "end_turn", None),
        ({**CALLS}, {"finish_reason": "stop"}, "tool_use", None),
    ],
)
async def test_why_it_stopped(
    fleet: Fleet, says: dict[str, Any], ends: dict[str, Any], reason: str, sequence: str | None
) -> None:
    await fleet.add("model-a", behaviour=Behaviour(says=says, ends=ends))
    whole = (await ask(fleet, stop_sequences=["###"])).json()
    assert (whole["stop_reason"], whole["stop_sequence"]) == (reason, sequence)
    events = await stream(fleet, stop_sequences=["###"])
    assert events[-2]["delta"] == {"stop_reason": reason, "stop_sequence": sequence}


async def test_what_cannot_be_said_in_chat_is_refused_by_name(fleet: Fleet) -> None:
    node = await fleet.add("model-a")
    block = {"type": "container_upload", "file_id": "f"}
    response = await ask(fleet, messages=[{"role": "user", "content": [{"type": "text", "text": "x"}, block]}])
    assert error_of(response) == (400, "invalid_request_error")
    assert "messages.0.content.1" in response.text
    assert "container_upload" in response.text
    assert "x-llmlb-node" not in response.headers
    response = await ask(fleet, tools=[{"type": "web_search_20250305", "name": "web_search"}])
    assert error_of(response) == (400, "invalid_request_error")
    assert "web_search_20250305" in response.text
    assert not node.inferences
    assert [entry.outcome for entry in await fleet.settled(2)] == ["client_error"] * 2


async def test_an_alias_stays_the_clients_word(fleet: Fleet) -> None:
    await fleet.add("model-a")
    await native(fleet, "model-b")
    await alias("translated", "model-a")
    await alias("passed", "model-b")
    for name in ("translated", "passed"):
        assert (await ask(fleet, model=name)).json()["model"] == name
        assert (await stream(fleet, model=name))[0]["message"]["model"] == name
    assert [sent(node)["model"] for node in fleet.nodes] == ["model-a", "model-b"]


# --- native -----------------------------------------------------------------------------------------------------------


async def test_a_node_that_speaks_it_gets_the_clients_bytes(fleet: Fleet) -> None:
    node = await native(fleet, behaviour=Behaviour(says=CALLS))
    body = b'{ "model":"model-a","max_tokens" : 9, "messages":[{"role":"user","content":"hi"}],"future":{"x":[1]} }'
    headers = {**VERSION, "anthropic-beta": "tomorrow", "x-api-key": fleet.key}
    response = await fleet.client.post(MESSAGES, content=body, headers=headers)
    assert response.status_code == 200
    assert "x-llmlb-translated" not in response.headers
    request = node.inferences[-1]
    assert (request.path, request.body) == (MESSAGES, body)
    assert request.headers["anthropic-version"] == "2023-06-01"
    assert request.headers["anthropic-beta"] == "tomorrow"
    assert "x-api-key" not in request.headers
    direct = await fleet.client.post(node.url + MESSAGES, content=body)
    assert response.content == direct.content
    (entry,) = await fleet.settled()
    assert (entry.prompt_tokens, entry.token_source) == (1, "usage")


async def test_a_native_stream_is_passed_on_to_the_byte(fleet: Fleet) -> None:
    node = await native(fleet)
    body: dict[str, Any] = {
        "model": "model-a",
        "max_tokens": 64,
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
    }
    passed = await ask(fleet, **body)
    direct = await fleet.client.post(node.url + MESSAGES, json=body)
    assert passed.content == direct.content
    (entry,) = await fleet.settled()
    assert (entry.outcome, entry.prompt_tokens, entry.completion_tokens) == ("success", 1, 5)


async def test_a_native_stream_without_message_stop_is_broken(fleet: Fleet) -> None:
    await native(fleet, behaviour=Behaviour(mode="no_finish"))
    events = await stream(fleet)
    assert [event["type"] for event in events[-2:]] == ["content_block_stop", "error"]
    assert (await fleet.settled())[0].outcome == "broken"
    await eventually(fleet.excluded)


async def test_a_node_that_turns_out_not_to_speak_it_is_asked_in_chat_without_blame(fleet: Fleet) -> None:
    node = await fleet.add("model-a", row={"native_apis": sorted(PATHS)})
    for asked in (1, 2):
        response = await ask(fleet)
        assert response.status_code == 200
        assert response.headers["x-llmlb-translated"] == "chat_completions"
        assert response.headers["x-llmlb-attempts"] == "1"
        assert len(node.inferences) == asked
    assert [request.path for request in node.seen].count(MESSAGES) == 1, "it is remembered"
    assert not await fleet.excluded()
    known = sync_to_async(lambda: Node.objects.get().native_apis)
    await eventually(lambda: _without_messages(known))


async def _without_messages(known: Any) -> bool:
    return MESSAGES not in await known()


async def test_a_native_node_that_has_no_such_model_is_at_fault(fleet: Fleet) -> None:
    await native(fleet, behaviour=Behaviour(mode="unknown_model_404"))
    assert error_of(await ask(fleet)) == (404, "not_found_error")
    await eventually(fleet.excluded)


# --- counting ---------------------------------------------------------------------------------------------------------


async def test_tokens_are_counted_by_a_node_that_can(fleet: Fleet) -> None:
    node = await native(fleet)
    response = await ask(fleet, COUNT)
    assert response.json() == {"input_tokens": 2}
    assert "x-llmlb-token-count" not in response.headers
    assert node.inferences[-1].path == COUNT
    (entry,) = await fleet.settled()
    assert (entry.kind, entry.total_tokens) == ("count_tokens", 0)


async def test_tokens_are_estimated_where_no_node_can_count_even_if_all_are_busy(fleet: Fleet) -> None:
    node = await fleet.add("model-a", limit=1, behaviour=Behaviour(latency=0.5))
    running = asyncio.create_task(ask(fleet))
    await eventually(lambda: node.in_flight == 1)
    text = "The quick brown fox jumps over the lazy dog. " * 10
    response = await ask(fleet, COUNT, messages=[{"role": "user", "content": text}], tools=[TOOL])
    assert response.headers["x-llmlb-token-count"] == "estimated"
    assert 90 < response.json()["input_tokens"] < 160
    assert not running.done()
    assert (await running).status_code == 200
    assert len(node.inferences) == 1


async def test_a_node_that_cannot_count_after_all(fleet: Fleet) -> None:
    await fleet.add("model-a", row={"native_apis": [COUNT]})
    response = await ask(fleet, COUNT)
    assert response.status_code == 200
    assert response.headers["x-llmlb-token-count"] == "estimated"


# --- errors -----------------------------------------------------------------------------------------------------------


async def test_the_version_header_is_wanted(fleet: Fleet) -> None:
    for path in (MESSAGES, COUNT):
        response = await ask(fleet, path, headers={})
        assert error_of(response) == (400, "invalid_request_error")
        assert "anthropic-version" in response.text


async def test_keys_are_refused_in_anthropics_shape(fleet: Fleet) -> None:
    response = await fleet.client.post(MESSAGES, json={}, headers={**VERSION, "x-api-key": "sk_nonsense"})
    assert error_of(response) == (401, "authentication_error")
    response = await fleet.client.get(MESSAGES, headers={**VERSION, "x-api-key": fleet.key})
    assert error_of(response) == (405, "invalid_request_error")
    assert (await ask(fleet, headers={**VERSION, "authorization": "Bearer sk_nonsense"})).status_code == 401


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"temperature": 1.1}, "temperature"),
        ({"top_p": -1}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content.0.text"),
        ({"stop_sequences": "###"}, "stop_sequences"),
        ({"stream": "yes"}, "stream"),
        ({"system": 7}, "system"),
        ({"tools": [{"name": "t"}]}, "tools.0.input_schema"),
        ({"tools": [TOOL], "tool_choice": {"type": "maybe"}}, "tool_choice"),
        ({"mcp_servers": [{"type": "url"}]}, "mcp_servers"),
        ({"model": ""}, "model"),
    ],
)
async def test_a_wrong_request_is_told_where(fleet: Fleet, values: dict[str, Any], where: str) -> None:
    node = await fleet.add("model-a")
    response = await ask(fleet, **values)
    assert error_of(response) == (400, "invalid_request_error")
    assert where in response.json()["error"]["message"]
    assert not node.inferences


async def test_no_route(fleet: Fleet) -> None:
    assert error_of(await ask(fleet)) == (503, "overloaded_error")
    await fleet.add("model-a")
    response = await ask(fleet, model="never-heard-of")
    assert error_of(response) == (404, "not_found_error")
    assert response.json()["error"]["details"] == {"error_code": "model_not_found"}


async def test_a_full_queue_is_overloaded(make_fleet: MakeFleet) -> None:
    fleet = await make_fleet(queue_max=1)
    await fleet.add("model-a", limit=1, behaviour=Behaviour(latency=0.5))
    running = asyncio.create_task(ask(fleet))
    await eventually(lambda: fleet.engine.state.stats().processing == 1)
    waiting = asyncio.create_task(ask(fleet))
    await eventually(lambda: fleet.engine.state.stats().waiting == 1)
    response = await ask(fleet)
    assert error_of(response) == (529, "overloaded_error")
    assert int(response.headers["retry-after"]) > 0
    assert [(await task).status_code for task in (running, waiting)] == [200, 200]


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_request_error"), (422, "invalid_request_error"), (429, "rate_limit_error"), (500, "api_error")],
)
@pytest.mark.parametrize("speaks", [False, True])
async def test_a_nodes_own_error_is_put_into_anthropics_shape(
    fleet: Fleet, speaks: bool, status: int, kind: str
) -> None:
    behaviour = Behaviour(status=status, error_body={"error": {"message": "it says so", "code": status}})
    await (native(fleet, behaviour=behaviour) if speaks else fleet.add("model-a", behaviour=behaviour))
    response = await ask(fleet)
    assert error_of(response) == (status, kind)
    assert response.json()["error"]["message"] == "it says so"


async def test_an_error_in_anthropics_shape_is_left_as_it_is(fleet: Fleet) -> None:
    body = {"type": "error", "error": {"type": "billing_error", "message": "pay"}, "request_id": "r"}
    await native(fleet, behaviour=Behaviour(status=402, error_body=body))
    assert (await ask(fleet)).json() == body


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["cut_before_headers", "not_json", "garbage"])
@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("speaks", [False, True])
async def test_a_failing_node_is_replaced(fleet: Fleet, speaks: bool, streams: bool, mode: Any) -> None:
    bad = await (native(fleet) if speaks else fleet.add("model-a"))
    await (fleet.add("model-a") if speaks else native(fleet))
    bad.behaviour = Behaviour(mode=mode)
    for _ in range(2):
        response = await ask(fleet, stream=streams)
        assert response.status_code == 200
        if streams:
            assert events_in(response.text)[-1]["type"] == "message_stop"
    await eventually(fleet.excluded)
    assert await fleet.excluded() == {"node-1"}


@pytest.mark.parametrize("speaks", [False, True])
async def test_a_stream_that_breaks_ends_with_an_error_and_without_message_stop(fleet: Fleet, speaks: bool) -> None:
    behaviour = Behaviour(mode="cut_mid_stream", cut_after=3, chunks=9)
    await (native(fleet, behaviour=behaviour) if speaks else fleet.add("model-a", behaviour=behaviour))
    events = await stream(fleet)
    assert events[-1]["type"] == "error"
    assert events[-1]["error"]["type"] == "api_error"
    assert "message_stop" not in {event["type"] for event in events}
    assert (await fleet.settled())[0].outcome == "broken"


async def test_done_without_a_finish_reason_is_a_broken_stream(fleet: Fleet) -> None:
    await fleet.add("model-a", behaviour=Behaviour(mode="no_finish"))
    events = await stream(fleet)
    assert events[-1]["type"] == "error"
    await eventually(fleet.excluded)


async def test_without_usage_the_tokens_are_estimated(fleet: Fleet) -> None:
    await fleet.add("model-a", behaviour=Behaviour(tells_usage=False))
    usage = (await ask(fleet)).json()["usage"]
    assert usage["input_tokens"] > 0
    assert usage["output_tokens"] > 0
    assert (await stream(fleet))[-2]["usage"]["output_tokens"] == 5
    assert {entry.token_source for entry in await fleet.settled(2)} == {"estimated"}
