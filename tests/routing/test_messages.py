"""`/v1/messages`: passed through to nodes that speak it, translated to chat for the others; tokens counted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from nodes.fake.messages import PATHS
from nodes.fake_node import Behaviour
from nodes.models import Node
from tests.routing.conftest import Fleet, eventually
from tests.routing.messages_support import (
    CALLS,
    COUNT,
    MESSAGES,
    TOOL,
    VERSION,
    alias,
    ask,
    error_of,
    events_in,
    gathered,
    native,
    sent,
    stream,
)

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


async def test_a_node_that_fails_to_count_loses_no_model(fleet: Fleet) -> None:
    await native(fleet, behaviour=Behaviour(status=500))
    assert error_of(await ask(fleet, COUNT)) == (500, "api_error")
    assert not (await fleet.settled())[0].attempts[0].excluded
    assert "model-a" in fleet.engine.table.holders


# --- many at once -----------------------------------------------------------------------------------------------------


async def test_a_hundred_streams_at_once_lose_and_mix_nothing(fleet: Fleet) -> None:
    await native(fleet, name="one", behaviour=Behaviour(chunks=20, chunk_interval=0.005))
    await fleet.add("model-a", name="two", behaviour=Behaviour(chunks=20, chunk_interval=0.005))
    responses = await asyncio.gather(*[ask(fleet, stream=True) for _ in range(100)])
    nodes = {"node-1": "one", "node-2": "two"}
    for response in responses:
        name = nodes[response.headers["x-llmlb-node"]]
        (block,) = gathered(events_in(response.text))
        assert block["text"] == "".join(f"{name}-{number} " for number in range(20))
    assert {response.headers["x-llmlb-node"] for response in responses} == set(nodes)
