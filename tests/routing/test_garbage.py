"""Nothing of a request refers to itself: looking for such garbage would stop every stream, and till then it is held."""

from __future__ import annotations

import asyncio
import gc
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from nodes.fake_node import Behaviour
from tests.routing.conftest import Fleet

OURS: Final = ("routing.", "llmlb_site.", "history.", "access.")
TIMES: Final = 5


@asynccontextmanager
async def garbage() -> AsyncIterator[Counter[str]]:
    """Filled at the end with what of ours only the collector would have found, by type."""
    found: Counter[str] = Counter()
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        await asyncio.sleep(0.05)  # a callback that is due still holds what it will call
        gc.collect()
        for thing in gc.garbage:
            kind = type(thing)  # not isinstance: it wakes lazy objects
            name = f"{kind.__module__}.{kind.__qualname__}"
            if name.startswith(OURS):
                found[name] += 1
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.collect()


def asked(fleet: Fleet, path: str, body: bytes, kind: str = "application/json") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {fleet.key}\r\nConnection: close\r\n"
    return f"{head}Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def chat(fleet: Fleet, **values: Any) -> bytes:
    body = {"model": "model-a", "messages": [{"role": "user", "content": "hello"}], **values}
    return asked(fleet, "/v1/chat/completions", json.dumps(body).encode())


def responses(fleet: Fleet, **values: Any) -> bytes:
    return asked(fleet, "/v1/responses", json.dumps({"model": "model-a", "input": "hello", **values}).encode())


def messages(fleet: Fleet) -> bytes:
    body = {"model": "model-a", "max_tokens": 5, "messages": [{"role": "user", "content": "hello"}]}
    return asked(fleet, "/v1/messages", json.dumps(body).encode())


def upload(fleet: Fleet, size: int = 1000) -> bytes:
    part = '--x\r\nContent-Disposition: form-data; name="{}"{}\r\n\r\n'
    form = part.format("model", "") + "model-a\r\n" + part.format("file", '; filename="a.wav"')
    body = form.encode() + b"RIFF    WAVE" + bytes(size) + b"\r\n--x--\r\n"
    return asked(fleet, "/v1/audio/transcriptions", body, "multipart/form-data; boundary=x")


REQUESTS: Final[dict[str, Callable[[Fleet], bytes]]] = {
    "whole": chat,
    "streamed": lambda fleet: chat(fleet, stream=True),
    "unknown model": lambda fleet: chat(fleet, model="nobody-has-it"),
    "no JSON": lambda fleet: asked(fleet, "/v1/chat/completions", b"{"),
    "wrong value": lambda fleet: chat(fleet, temperature=99),
    "unknown path": lambda fleet: asked(fleet, "/v1/nothing", b""),
    "responses": responses,
    "responses streamed": lambda fleet: responses(fleet, stream=True),
    "messages": messages,
    "upload": upload,
    "long upload": lambda fleet: upload(fleet, 3_000_000),
    "no form": lambda fleet: asked(fleet, "/v1/audio/transcriptions", b"--y", "multipart/form-data; boundary=x"),
}


async def ask(fleet: Fleet, request: bytes) -> bytes:
    """On a connection of its own, which the gateway closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(fleet.url).port)
    writer.write(request)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.mark.parametrize("name", REQUESTS)
async def test_a_request_leaves_no_garbage(fleet: Fleet, name: str) -> None:
    await fleet.add("model-a")
    request = REQUESTS[name](fleet)
    await ask(fleet, request)  # what is made once, is
    async with garbage() as found:
        for _ in range(TIMES):
            assert (await ask(fleet, request)).startswith(b"HTTP/1.1 ")
    assert not found


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_leaves_no_garbage(fleet: Fleet, stream: bool) -> None:
    slow = Behaviour(chunks=1000, chunk_interval=0.01, latency=0 if stream else 5)
    node = await fleet.add("model-a", behaviour=slow)
    request = chat(fleet, stream=stream)

    async def leave() -> None:
        before = len(node.inferences)
        _reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(fleet.url).port)
        writer.write(request)
        async with asyncio.timeout(5):
            while len(node.inferences) == before:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        writer.transport.abort()

    await leave()
    await fleet.settled(1)
    async with garbage() as found:
        for _ in range(TIMES):
            await leave()
        await fleet.settled(1 + TIMES)
    assert not found
