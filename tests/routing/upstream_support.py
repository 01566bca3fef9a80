"""The client of the hot path, and servers on real sockets that treat it as a test says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from llmlb_site.lib.upstream.base import Target, UpstreamAnswer
from llmlb_site.lib.upstream.client import PooledClient
from tests.routing.support import chat_body

PATH = "/v1/chat/completions"

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Listen = Callable[[Serve], Awaitable[str]]


@pytest.fixture
async def client() -> AsyncIterator[PooledClient]:
    client = PooledClient(connect_timeout=1)
    yield client
    await client.aclose()


@pytest.fixture
async def listen() -> AsyncIterator[Callable[[Serve], Awaitable[str]]]:
    """`await listen(serve)` is the URL of a server that treats each connection so; all is closed at the end."""
    servers: list[asyncio.Server] = []
    writers: list[asyncio.StreamWriter] = []

    async def start(serve: Serve) -> str:
        async def remember(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await serve(reader, writer)

        servers.append(await asyncio.start_server(remember, "127.0.0.1", 0))
        return f"http://127.0.0.1:{servers[-1].sockets[0].getsockname()[1]}"

    yield start
    for server in servers:
        server.close()
    for writer in writers:
        writer.transport.abort()
    await asyncio.sleep(0.01)


async def send(client: PooledClient, url: str, *, stream: bool = False, silence: float = 5) -> UpstreamAnswer:
    headers = [(b"content-type", b"application/json")]
    return await client.send(Target(url), "POST", PATH, headers, chat_body(stream=stream), silence=silence)


async def read_all(answer: UpstreamAnswer) -> bytes:
    try:
        pieces = [piece async for piece in _pieces(answer)]
    finally:
        answer.close()
    return b"".join(pieces)


async def _pieces(answer: UpstreamAnswer) -> AsyncIterator[bytes]:
    while piece := await answer.read():
        yield piece


def saying(*answers: bytes, then_close: bool = True) -> Serve:
    """Answers the requests of a connection with these bytes, one after another."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(0.01)
            writer.write(answer)
            await writer.drain()
        if then_close:
            writer.close()

    return serve


async def until(check: Callable[[], object]) -> None:
    async with asyncio.timeout(3):
        while not check():
            await asyncio.sleep(0.005)


class Pieces:
    """A body of `count` pieces of 64 KB that is never in memory as a whole."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.sent = 0

    @property
    def length(self) -> int:
        return self.count * 65536

    def pieces(self) -> Iterator[bytes]:
        for _ in range(self.count):
            self.sent += 1
            yield b"x" * 65536
