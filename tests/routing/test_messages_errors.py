"""What goes wrong on `/v1/messages`: told in Anthropic's shape, and survived where another node can answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from nodes.fake_node import Behaviour
from tests.routing.conftest import Fleet, MakeFleet, eventually
from tests.routing.messages_support import (
    COUNT,
    MESSAGES,
    TOOL,
    VERSION,
    ask,
    error_of,
    events_in,
    native,
    stream,
)

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


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ([{"type": "text"}], "content.0.text"),
        ([{"type": "text", "text": 7}], "content.0.text"),
        ([{"type": "tool_result", "content": [{"type": "text"}]}], "content.0.content.0.text"),
        ([7], "content.0"),
    ],
)
async def test_what_makes_a_server_stumble_does_not_reach_it(fleet: Fleet, content: Any, where: str) -> None:
    node = await native(fleet)
    response = await ask(fleet, messages=[{"role": "user", "content": content}])
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


@pytest.mark.parametrize("depth", [*range(900, 1000, 33), 100_000])
async def test_nesting_is_refused_or_passed_but_never_our_failure(fleet: Fleet, depth: int) -> None:
    await fleet.add("model-a")
    deep = b"[" * depth + b"]" * depth
    source = b'{"type":"document","source":{"type":"content","content":[' * (depth // 3) + b"]}}" * (depth // 3)
    for content, more in (
        (deep, b""),
        (source, b""),
        (b'"x"', b',"tools":[{"name":"t","input_schema":{"a":%b}}]' % deep),
    ):
        head = b'{"model":"model-a","max_tokens":9%b,"messages":[{"role":"user","content":' % more
        body = head + (b"[%b]" % content if content == source else content) + b"}]}"
        for path in (MESSAGES, COUNT):
            response = await fleet.client.post(path, content=body, headers={**VERSION, "x-api-key": fleet.key})
            assert response.status_code in (200, 400), response.text
