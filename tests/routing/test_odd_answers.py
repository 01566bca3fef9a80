"""Answers of nodes that no well-behaved server gives, to the byte, through the whole gateway."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from asgiref.sync import sync_to_async

from routing.gateway import replies
from tests.routing.conftest import Fleet, eventually

FIRST = b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n'
LAST = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
PAUSE = b"<pause>"
HANG = b"<hang>"

Add = Callable[[bytes], Awaitable[int]]


@pytest.fixture
async def add_saying(fleet: Fleet) -> AsyncIterator[Add]:
    """`await add_saying(answer)`: a node that answers so to everything; returns its port."""
    servers: list[asyncio.Server] = []
    hanging: list[asyncio.StreamWriter] = []

    async def add(answer: bytes) -> int:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            port = writer.get_extra_info("sockname")[1]
            for piece in answer.removesuffix(HANG).replace(b"PORT", str(port).encode()).split(PAUSE):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.02)
            if answer.endswith(HANG):
                hanging.append(writer)
            else:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        node: Any = SimpleNamespace(url=f"http://127.0.0.1:{port}", api_key="", models=["model-a"])
        await sync_to_async(fleet._store)(node, None, {"name": f"odd-{len(servers)}"})
        await fleet.engine.control.catch_up(timeout=5)
        return port

    yield add
    for writer in hanging:
        writer.close()
    for server in servers:
        server.close()


def stream(*events: bytes, media_type: bytes = b"text/event-stream", headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\n%s\r\n%s" % (media_type, headers, b"".join(events))


async def test_an_answer_in_broken_utf_8_passes_and_has_its_row(fleet: Fleet, add_saying: Add) -> None:
    body = b'{"choices":[{"message":{"content":"\xff\xfe"},"finish_reason":"stop"}]}'
    await add_saying(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + body)
    response = await fleet.post()
    assert (response.status_code, response.content) == (200, body)
    entries = await fleet.settled(1)
    assert (entries[0].status, entries[0].outcome, entries[0].token_source) == (200, "success", "estimated")


async def test_an_error_in_the_middle_of_a_stream_names_no_address(fleet: Fleet, add_saying: Add) -> None:
    error = b'data: {"id":"x","error":{"message":"see http://127.0.0.1:PORT/trace"}}\n\n'
    port = await add_saying(stream(FIRST, PAUSE, error, LAST, DONE))
    text = (await fleet.post(stream=True)).text
    assert "see http://node/trace" in text
    assert str(port) not in text
    entries = await fleet.settled(1)
    assert (entries[0].outcome, entries[0].error_code) == ("broken", "node_error")


async def test_an_error_in_place_of_an_answer_is_one_even_if_all_of_a_stream_follows(
    fleet: Fleet, add_saying: Add
) -> None:
    await add_saying(stream(b'data: {"error":{"message":"no memory"}}\n\n', LAST, DONE))
    response = await fleet.post(stream=True)
    assert (response.status_code, response.json()["error"]["code"]) == (502, "node_connection_error")


async def test_the_media_type_of_a_stream_may_be_in_capitals(fleet: Fleet, add_saying: Add) -> None:
    await add_saying(stream(FIRST, LAST, DONE, media_type=b"Text/Event-Stream; charset=UTF-8"))
    response = await fleet.post(stream=True)
    assert (response.status_code, response.content) == (200, FIRST + LAST + DONE)


async def test_a_stream_may_come_without_a_media_type(fleet: Fleet, add_saying: Add) -> None:
    """As frameworks send it where nobody named one; the client is told what it is."""
    await add_saying(b"HTTP/1.1 200 OK\r\n\r\n" + FIRST + LAST + DONE)
    response = await fleet.post(stream=True)
    assert (response.status_code, response.content) == (200, FIRST + LAST + DONE)
    assert response.headers["content-type"] == "text/event-stream"


@pytest.mark.parametrize("body", [b'{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}]}', b"<html>"])
async def test_what_comes_without_a_media_type_and_is_no_stream_is_asked_of_another_node(
    fleet: Fleet, add_saying: Add, body: bytes
) -> None:
    await add_saying(b"HTTP/1.1 200 OK\r\n\r\n" + body)
    assert (await fleet.post(stream=True)).status_code == 502
    await eventually(fleet.excluded)


async def test_what_a_node_says_of_its_own_connection_stays_there(fleet: Fleet, add_saying: Add) -> None:
    headers = (
        b"Connection: close, X-Hop\r\nX-Hop: 1\r\nX-Kept: 1\r\nX-Accel-Buffering: yes\r\nCache-Control: public\r\n"
    )
    await add_saying(stream(FIRST, LAST, DONE, headers=headers))
    response = await fleet.post(stream=True)
    assert "x-hop" not in response.headers
    assert response.headers["x-kept"] == "1"
    assert response.headers.get_list("x-accel-buffering") == ["no"]
    assert response.headers.get_list("cache-control") == ["no-cache"]


async def test_events_that_end_with_cr_alone_get_nothing_added(fleet: Fleet, add_saying: Add) -> None:
    events = [event.replace(b"\n", b"\r") for event in (FIRST, LAST, DONE)]
    await add_saying(stream(*events))
    assert (await fleet.post(stream=True)).content == b"".join(events)


async def test_a_body_that_is_not_utf_8_reaches_no_node(fleet: Fleet) -> None:
    node = await fleet.add("model-a")
    body = json.dumps({"model": "model-a", "messages": "\u00e9"}, ensure_ascii=False).encode("latin-1")
    response = await fleet.client.post(
        "/v1/chat/completions", content=body, headers={"Authorization": f"Bearer {fleet.key}"}
    )
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_json")
    assert not node.inferences


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
async def test_a_count_that_cannot_be_is_estimated_in_its_place(fleet: Fleet, add_saying: Add, path: str) -> None:
    usage = b'{"prompt_tokens":-1,"completion_tokens":9007199254740993}'
    body = b'{"choices":[{"message":{"content":"Good morning."},"finish_reason":"stop"}],"usage":%b}' % usage
    await add_saying(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + body)
    asked = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 5, "input": "hello"}
    response = await fleet.client.post(
        path,
        json={"model": "model-a", **asked},
        headers={"Authorization": f"Bearer {fleet.key}", "anthropic-version": "2023-06-01"},
    )
    assert response.status_code == 200
    assert "Good morning." in response.text
    (entry,) = await fleet.settled(1)
    assert entry.token_source == "estimated"
    assert 0 < (entry.total_tokens or 0) < 20


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_head_that_cannot_be_sent_leaves_room_for_the_error(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, streaming: bool
) -> None:
    monkeypatch.setattr(replies, "forwarded", lambda headers: [(b"x-odd", b"two\r\nlines")])
    await fleet.add("model-a")
    response = await fleet.post(stream=streaming)
    assert (response.status_code, response.json()["error"]["code"]) == (500, "internal_error")
    (entry,) = await fleet.settled(1)
    assert (entry.status, entry.error_code) == (500, "internal_error")


async def test_a_status_that_http_has_none_of_is_the_nodes_fault(fleet: Fleet, add_saying: Add) -> None:
    await add_saying(b"HTTP/1.1 700 Odd\r\nContent-Type: application/json\r\n\r\n" + b'{"error":{"message":"odd"}}')
    response = await fleet.post()
    assert (response.status_code, response.json()["error"]["code"]) == (502, "node_connection_error")
    await eventually(fleet.excluded)


@pytest.mark.parametrize(
    "body",
    [
        b'{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}]}',
        b'{"a":1}\n\n{"b":2}\n\n',
        pytest.param(gzip.compress(FIRST), id="compressed"),
    ],
)
async def test_what_only_says_that_it_is_an_event_stream_is_asked_of_another_node(
    fleet: Fleet, add_saying: Add, body: bytes
) -> None:
    await add_saying(stream(body))
    response = await fleet.post(stream=True)
    assert (response.status_code, response.json()["error"]["code"]) == (502, "node_connection_error")
    await eventually(fleet.excluded)


@pytest.mark.parametrize(
    "begin", [b": hello\n\n", b"\xef\xbb\xbf", b"\n\r\n", b"event: message\n", b"id: 1\r\n", b"retry: 9\n\n"]
)
async def test_every_way_to_begin_an_event_stream(fleet: Fleet, add_saying: Add, begin: bytes) -> None:
    await add_saying(stream(begin, FIRST, LAST, DONE))
    response = await fleet.post(stream=True)
    assert (response.status_code, response.content) == (200, begin + FIRST + LAST + DONE)


# How each API ends a stream that is whole, whatever the node spoke.
ENDS = {"/v1/chat/completions": "[DONE]", "/v1/messages": "message_stop", "/v1/responses": "response.completed"}


async def ask_streaming(fleet: Fleet, path: str) -> httpx.Response:
    asked = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 5, "input": "hello"}
    return await fleet.client.post(
        path,
        json={"model": "model-a", "stream": True, **asked},
        headers={"Authorization": f"Bearer {fleet.key}", "anthropic-version": "2023-06-01"},
    )


@pytest.mark.parametrize("path", ENDS)
async def test_a_byte_order_mark_hides_nothing_of_the_first_event(fleet: Fleet, add_saying: Add, path: str) -> None:
    whole = b'data: {"choices":[{"index":0,"delta":{"content":"Heureka"},"finish_reason":"stop"}]}\n\n'
    await add_saying(stream(b"\xef\xbb\xbf", whole, DONE))
    text = (await ask_streaming(fleet, path)).text
    assert "Heureka" in text
    assert ENDS[path] in text
    assert not await fleet.excluded()


@pytest.mark.parametrize("path", ENDS)
async def test_a_node_that_knows_no_finish_reason_ends_its_streams_with_done(
    fleet: Fleet, add_saying: Add, path: str
) -> None:
    pieces = [b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % text for text in (b"Heu", b"reka")]
    await add_saying(stream(*pieces, DONE))
    text = (await ask_streaming(fleet, path)).text
    assert ENDS[path] in text
    assert "error" not in text.replace('"error":null', "")
    (entry,) = await fleet.settled(1)
    assert (entry.outcome, entry.completion_tokens) == ("success", 2)
    assert not await fleet.excluded()


@pytest.mark.parametrize("path", ENDS)
@pytest.mark.parametrize("error", [b'{"error":{"message":"out of memory"}}', b'{"choices":[]}'])
async def test_nor_is_done_believed_after_an_error_or_nothing(
    fleet: Fleet, add_saying: Add, path: str, error: bytes
) -> None:
    await add_saying(stream(b": hello\n\n", b"data: " + error + b"\n\n", DONE))
    text = (await ask_streaming(fleet, path)).text
    assert ENDS[path] not in text
    await eventually(fleet.excluded)


@pytest.mark.parametrize("path", ENDS)
@pytest.mark.parametrize("end", [HANG, b""])
async def test_what_a_node_does_after_its_last_event_harms_nobody(
    fleet: Fleet, add_saying: Add, path: str, end: bytes
) -> None:
    """It never ends the answer, or breaks it off: the client has all of it, in time, and the node is not to blame."""
    events = b"".join((FIRST, LAST, DONE))
    chunked = b"%x\r\n%s\r\n" % (len(events), events)
    await add_saying(stream(chunked + end, headers=b"Transfer-Encoding: chunked\r\n"))
    async with asyncio.timeout(5):
        text = (await ask_streaming(fleet, path)).text
    assert ENDS[path] in text
    (entry,) = await fleet.settled(1)
    assert (entry.outcome, entry.error_code) == ("success", "")
    assert not await fleet.excluded()


async def test_sound_that_is_compressed_unasked_is_no_sound(fleet: Fleet, add_saying: Add) -> None:
    """The client would not be told how to read it."""
    headers = b"HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\nContent-Encoding: gzip\r\n\r\n"
    await add_saying(headers + gzip.compress(b"RIFF"))
    response = await fleet.post("/v1/audio/speech", input="hello", voice="nova")
    assert (response.status_code, response.json()["error"]["code"]) == (502, "node_connection_error")
    await eventually(fleet.excluded)
