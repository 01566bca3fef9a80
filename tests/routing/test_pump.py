"""A node's bytes handed on in the callback in which they come: `UpstreamAnswer.pump`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from llmlb_site.lib.upstream.base import Target
from llmlb_site.lib.upstream.client import PooledClient
from llmlb_site.lib.upstream.faults import BrokenFault, TimeoutFault

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


class Node:
    """Answers one request with what it is given, piece by piece, when it is told to."""

    def __init__(self) -> None:
        self.writer: asyncio.StreamWriter

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.writer = writer
        writer.write(HEAD)
        await writer.drain()

    async def say(self, *pieces: bytes, end: bool = False) -> None:
        self.writer.write(b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + (END if end else b""))
        await self.writer.drain()
        await asyncio.sleep(0.02)


def into(seen: list[bytes]) -> Callable[[bytes], bool]:
    def sink(data: bytes) -> bool:
        seen.append(data)
        return True

    return sink


@pytest.fixture
async def node() -> Node:
    return Node()


@pytest.fixture
async def client() -> AsyncIterator[PooledClient]:
    client = PooledClient(connect_timeout=1)
    yield client
    await client.aclose()


@pytest.fixture
async def url(node: Node) -> AsyncIterator[str]:
    server = await asyncio.start_server(node.serve, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    node.writer.transport.abort()
    await asyncio.sleep(0.01)


async def test_each_piece_comes_at_once_and_in_order(client: PooledClient, node: Node, url: str) -> None:
    answer = await client.send(Target(url), "GET", "/", [], b"", silence=5)
    seen: list[bytes] = []
    pumping = asyncio.create_task(answer.pump(into(seen)))
    await asyncio.sleep(0)
    for piece in (b"one", b"two", b"three"):
        await node.say(piece)
        assert seen[-1] == piece
    await node.say(end=True)
    assert await pumping is False
    assert seen == [b"one", b"two", b"three"]


async def test_a_sink_that_has_enough_is_asked_again_before_it_gets_more(
    client: PooledClient, node: Node, url: str
) -> None:
    answer = await client.send(Target(url), "GET", "/", [], b"", silence=5)
    seen: list[bytes] = []

    def one_at_a_time(data: bytes) -> bool:
        seen.append(data)
        return False

    pumping = asyncio.create_task(answer.pump(one_at_a_time))
    await asyncio.sleep(0)
    await node.say(b"one")
    assert await pumping is True
    await node.say(b"two")
    await node.say(b"three", end=True)
    assert seen == [b"one"]
    assert await answer.pump(one_at_a_time) is True
    assert await answer.pump(one_at_a_time) is False
    assert seen == [b"one", b"twothree"]


async def test_of_pieces_that_come_together_a_sink_gets_no_more_than_it_wants(
    client: PooledClient, node: Node, url: str
) -> None:
    answer = await client.send(Target(url), "GET", "/", [], b"", silence=5)
    seen: list[bytes] = []

    def two(data: bytes) -> bool:
        seen.append(data)
        return len(seen) < 2

    pumping = asyncio.create_task(answer.pump(two))
    await asyncio.sleep(0)
    await node.say(b"one", b"two", b"three", b"four", end=True)
    assert await pumping is True
    assert seen == [b"one", b"two"]
    assert await answer.pump(into(seen)) is False
    assert b"".join(seen) == b"onetwothreefour"


async def test_what_a_sink_raises_is_told_even_at_the_very_end(client: PooledClient, node: Node, url: str) -> None:
    answer = await client.send(Target(url), "GET", "/", [], b"", silence=5)
    calls: list[bytes] = []

    def refusing(data: bytes) -> bool:
        calls.append(data)
        raise BrokenFault("no")

    pumping = asyncio.create_task(answer.pump(refusing))
    await asyncio.sleep(0)
    node.writer.write(b"3\r\none\r\n" + END)
    await node.writer.drain()
    with pytest.raises(BrokenFault, match="no"):
        await pumping
    assert calls == [b"one"]


async def test_a_sink_that_raised_gets_nothing_more(client: PooledClient, node: Node, url: str) -> None:
    answer = await client.send(Target(url), "GET", "/", [], b"", silence=5)
    calls: list[bytes] = []

    def refusing(data: bytes) -> bool:
        calls.append(data)
        raise ValueError("no")

    pumping = asyncio.create_task(answer.pump(refusing))
    await asyncio.sleep(0)
    await node.say(b"one")
    await node.say(b"two", end=True)
    with pytest.raises(ValueError, match="no"):
        await pumping
    assert calls == [b"one"]


@pytest.mark.parametrize("how", ["close", "silence"])
async def test_what_came_is_handed_on_before_the_fault(client: PooledClient, node: Node, url: str, how: str) -> None:
    answer = await client.send(Target(url), "GET", "/", [], b"", silence=0.3)
    seen: list[bytes] = []
    pumping = asyncio.create_task(answer.pump(into(seen)))
    await asyncio.sleep(0)
    await node.say(b"one")
    if how == "close":
        node.writer.close()
    with pytest.raises(BrokenFault if how == "close" else TimeoutFault):
        await asyncio.wait_for(pumping, 5)
    assert seen == [b"one"]
    answer.close()
