"""The client of the hot path against nodes that misbehave, on real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from llmlb_site.lib.upstream import client as upstream
from llmlb_site.lib.upstream import connection
from llmlb_site.lib.upstream.base import Target
from llmlb_site.lib.upstream.client import PooledClient
from llmlb_site.lib.upstream.faults import BrokenFault, ConnectFault, MalformedFault, SendFault, TimeoutFault
from nodes.fake_node import Behaviour, FakeNode
from tests.routing.support import chat_body
from tests.routing.upstream_support import PATH, Listen, Pieces, client, listen, read_all, saying, send, until

__all__ = ["client", "listen"]


@pytest.fixture
async def node() -> AsyncIterator[FakeNode]:
    node = FakeNode()
    await node.start()
    yield node
    await node.stop()


async def test_connections_are_kept_and_used_again(client: PooledClient, node: FakeNode) -> None:
    for _ in range(5):
        assert b"choices" in await read_all(await send(client, node.url))
    assert len(node.connections) == 1


async def test_what_a_busy_time_left_is_closed_though_the_node_would_keep_it(
    client: PooledClient, node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "IDLE_SECONDS", 0.3)
    node.behaviour = Behaviour(latency=0.05)
    await asyncio.gather(*[read(client, node) for _ in range(10)])
    assert len(node.connections) == 10
    async with asyncio.timeout(5):
        while len(node.connections) > 1:
            await read(client, node)  # one is wanted all the time
            await asyncio.sleep(0.05)
        while node.connections:
            await asyncio.sleep(0.05)


async def read(client: PooledClient, node: FakeNode) -> bytes:
    return await read_all(await send(client, node.url))


async def test_keep_alive_needs_no_header_in_http_1_1(client: PooledClient, listen: Listen) -> None:
    good = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
    url = await listen(saying(good, good, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nthird"))
    answers = [await read_all(await send(client, url)) for _ in range(3)]
    assert answers == [b"hi", b"hi", b"third"]


async def test_a_connection_that_the_node_closed_meanwhile_is_no_fault(client: PooledClient, node: FakeNode) -> None:
    node.behaviour = Behaviour(mode="half_close")
    for _ in range(20):
        assert b"choices" in await read_all(await send(client, node.url))


async def test_refused(client: PooledClient) -> None:
    with pytest.raises(ConnectFault) as fault:
        await send(client, "http://127.0.0.1:9")
    assert "127.0.0.1" not in str(fault.value)


async def test_black_hole(client: PooledClient) -> None:
    """A full backlog drops new connections in silence, as a node behind a dead link does."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        with socket.create_connection(listener.getsockname()), pytest.raises((ConnectFault, TimeoutFault)):
            for _ in range(3):
                await send(client, f"http://127.0.0.1:{listener.getsockname()[1]}", silence=0.3)


@pytest.mark.parametrize(
    ("mode", "stream", "fault"),
    [
        ("hang", False, TimeoutFault),
        ("garbage", False, MalformedFault),
        ("cut_before_headers", False, SendFault),
        ("cut_in_body", False, BrokenFault),
        ("cut_mid_stream", True, BrokenFault),
    ],
)
@pytest.mark.parametrize("reset", [False, True])
async def test_each_misbehaviour_is_its_own_fault(
    client: PooledClient, node: FakeNode, mode: str, stream: bool, fault: type[Exception], reset: bool
) -> None:
    node.behaviour = Behaviour(mode=mode, reset=reset)  # type: ignore[arg-type]
    with pytest.raises(fault):
        await read_all(await send(client, node.url, stream=stream, silence=0.3))


async def test_silence_in_the_middle_of_a_stream(client: PooledClient, node: FakeNode) -> None:
    node.behaviour = Behaviour(chunks=10, chunk_interval=0.1)
    assert b"[DONE]" in await read_all(await send(client, node.url, stream=True, silence=0.5))
    node.behaviour = Behaviour(chunks=10, chunk_interval=1)
    with pytest.raises(TimeoutFault):
        await read_all(await send(client, node.url, stream=True, silence=0.3))


async def test_closing_before_the_end_is_felt_by_the_node(client: PooledClient, node: FakeNode) -> None:
    node.behaviour = Behaviour(chunks=1000, chunk_interval=0.01)
    answer = await send(client, node.url, stream=True)
    await answer.read()
    answer.close()
    await until(lambda: node.seen[0].aborted)


async def test_cancelling_is_felt_by_the_node(client: PooledClient, node: FakeNode) -> None:
    node.behaviour = Behaviour(latency=30)
    task = asyncio.create_task(send(client, node.url))
    await until(lambda: node.seen)
    task.cancel()
    await until(lambda: node.seen[0].aborted)


async def test_a_slow_reader_holds_the_node_back(client: PooledClient, listen: Listen) -> None:
    size = 32 * 1024 * 1024
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while sent < size:
            writer.write(b"x" * 65536)
            sent += 65536
            await writer.drain()

    answer = await send(client, await listen(serve), silence=0.3)
    await asyncio.sleep(1)  # longer than the silence: it is we who are slow, not the node
    assert sent < 16 * 1024 * 1024
    total = 0
    while piece := await answer.read():
        total += len(piece)
    assert total == size


async def test_a_thousand_at_once(client: PooledClient, node: FakeNode) -> None:
    client._connect_timeout = 20
    node.behaviour = Behaviour(latency=0.2)
    bodies = await asyncio.gather(*[_whole(client, node.url) for _ in range(1000)])
    assert len(bodies) == 1000
    assert all(b"choices" in body for body in bodies)


async def _whole(client: PooledClient, url: str) -> bytes:
    return await read_all(await send(client, url))


async def test_a_large_body_is_sent_no_faster_than_the_node_reads(client: PooledClient, listen: Listen) -> None:
    may_read = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await may_read.wait()
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(body.length)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

    body = Pieces(512)
    url = await listen(serve)
    task = asyncio.create_task(client.send(Target(url), "POST", PATH, [], body, silence=5))
    await asyncio.sleep(0.3)
    assert body.sent < 256
    may_read.set()
    assert await read_all(await task) == b"hi"
    assert body.sent == 512


async def test_a_node_that_refuses_a_large_body_early_is_heard(client: PooledClient, listen: Listen) -> None:
    url = await listen(saying(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno", then_close=False))
    body = Pieces(2000)
    answer = await client.send(Target(url), "POST", PATH, [], body, silence=5)
    assert (answer.status, await read_all(answer)) == (413, b"no")
    assert body.sent < 2000


async def test_a_connection_that_still_owes_the_node_a_body_is_not_used_again(
    client: PooledClient, listen: Listen
) -> None:
    url = await listen(saying(b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno", then_close=False))
    for _ in range(2):
        answer = await client.send(Target(url), "POST", PATH, [], Pieces(2000), silence=5)
        assert (answer.status, await read_all(answer)) == (401, b"no")
    answer = await send(client, url)
    assert (answer.status, await read_all(answer)) == (401, b"no")


async def test_a_connection_that_took_a_whole_upload_is_used_again(client: PooledClient, listen: Listen) -> None:
    connections = 0
    body = Pieces(20)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(body.length)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

    url = await listen(serve)
    for _ in range(3):
        assert await read_all(await client.send(Target(url), "POST", PATH, [], body, silence=5)) == b"hi"
    assert connections == 1


async def test_a_request_that_a_node_has_worked_on_is_not_sent_to_it_again(
    client: PooledClient, listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "STALE_SECONDS", 0.1)
    requests = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        while True:
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(len(chat_body()))
            requests += 1
            if requests > 1:
                await asyncio.sleep(0.3)
                writer.transport.abort()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

    url = await listen(serve)
    assert await read_all(await send(client, url)) == b"hi"
    with pytest.raises(SendFault):
        await send(client, url)
    assert requests == 2
