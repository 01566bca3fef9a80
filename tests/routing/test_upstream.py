"""The client of the hot path against nodes that misbehave, on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from llmlb_site.lib.upstream.base import Target, UpstreamAnswer
from llmlb_site.lib.upstream.client import PooledClient
from llmlb_site.lib.upstream.faults import BrokenFault, ConnectFault, MalformedFault, SendFault, TimeoutFault
from nodes.fake_node import Behaviour, FakeNode
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
async def node() -> AsyncIterator[FakeNode]:
    node = FakeNode()
    await node.start()
    yield node
    await node.stop()


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


async def test_connections_are_kept_and_used_again(client: PooledClient, node: FakeNode) -> None:
    for _ in range(5):
        assert b"choices" in await read_all(await send(client, node.url))
    assert len(node.connections) == 1


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


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"hi"),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.0 200 OK\r\n\r\nold", b"old"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", b"hi"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"hi"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi and more that nobody asked for", b"hi"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", b"hi"),
    ],
)
async def test_every_way_to_end_a_body(client: PooledClient, listen: Listen, answer: bytes, expected: bytes) -> None:
    url = await listen(saying(answer))
    answered = await send(client, url)
    assert answered.status in (200, 204)
    assert await read_all(answered) == expected


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhi",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
    ],
)
async def test_a_body_that_stops_too_early_is_never_taken_for_whole(
    client: PooledClient, listen: Listen, answer: bytes
) -> None:
    url = await listen(saying(answer))
    with pytest.raises((BrokenFault, MalformedFault)):
        await read_all(await send(client, url))


async def test_a_head_without_end_is_cut_off(client: PooledClient, listen: Listen) -> None:
    url = await listen(saying(b"HTTP/1.1 200 OK\r\n" + b"X-Long: " + b"a" * 200_000, then_close=False))
    with pytest.raises(MalformedFault):
        await send(client, url)


async def test_what_comes_unasked_between_two_requests_ends_the_connection(
    client: PooledClient, listen: Listen
) -> None:
    good = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
    url = await listen(saying(good + b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstale", then_close=False))
    for _ in range(3):
        assert await read_all(await send(client, url)) == b"hi"


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
