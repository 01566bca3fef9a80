"""What the reader of streams sees: read by read, and of a node on a real socket."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.side_by_side import bodies, streams
from benchmarks.side_by_side.streams import Followed, Reader

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
DONE = b"data: [DONE]\n\n"


def chunk(number: int) -> bytes:
    return b'data: {"choices":[{"delta":{"content":"n=%d sent=%.6f xxxx"}}]}\n\n' % (number, time.monotonic())


class Connection(asyncio.Transport):
    """Takes the question, and is closed."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def close(self) -> None:
        pass


async def read(*reads: bytes, expected: int) -> Followed:
    """What is seen where the socket gives these pieces, and then ends."""
    seen = Followed()
    reader = Reader(b"", expected, seen, asyncio.get_running_loop().create_future())
    reader.connection_made(Connection())
    for piece in (HEAD, *reads):
        reader.data_received(piece)
    reader.connection_lost(None)
    return seen


async def test_a_whole_stream_of_chunks_that_came_one_by_one() -> None:
    seen = await read(chunk(0), chunk(1), chunk(2), DONE, expected=3)
    assert (seen.chunks, seen.alone, seen.out_of_order, seen.whole, seen.errors) == (3, 3, 0, 1, 0)
    assert len(seen.first_bytes) == 1
    assert len(seen.gaps) == 2


async def test_chunks_that_came_together_are_not_alone() -> None:
    seen = await read(chunk(0) + chunk(1), chunk(2), DONE, expected=3)
    assert (seen.chunks, seen.alone, seen.whole) == (3, 1, 1)


async def test_a_chunk_cut_anywhere_is_one_chunk() -> None:
    whole = chunk(0)
    for at in range(1, len(whole)):
        seen = await read(whole[:at], whole[at:], DONE, expected=1)
        assert (seen.chunks, seen.alone, seen.out_of_order, seen.whole) == (1, 1, 0, 1), f"cut at {at}"


async def test_a_lost_chunk_and_a_swapped_one_are_seen() -> None:
    seen = await read(chunk(0), chunk(2), chunk(1), DONE, expected=4)
    assert seen.out_of_order > 0
    assert (seen.whole, seen.errors) == (0, 1)
    assert streams.figures(seen, expected=4)["missing"] == 1


@contextmanager
def node_that_sends(data: bytes) -> Iterator[str]:
    """Answers one question with this, and closes. Yields: its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(data)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1/chat/completions"
        thread.join(5)


def follow(data: bytes, *, chunks: int) -> Followed:
    with node_that_sends(HEAD + data) as url:
        body = bodies.chat("hello", stream=True)
        return streams.follow(url, "key", body, count=1, chunks=chunks, turns=1, seconds=5, spread=0)


def test_a_stream_that_ends_is_whole_and_one_that_breaks_is_an_error() -> None:
    whole = follow(chunk(0) + chunk(1) + DONE, chunks=2)
    assert (whole.chunks, whole.whole, whole.errors) == (2, 1, 0)
    broken = follow(chunk(0) + chunk(1), chunks=2)
    assert (broken.chunks, broken.whole, broken.errors) == (2, 0, 1)


def test_a_refusal_is_an_error() -> None:
    with node_that_sends(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n") as url:
        seen = streams.follow(url, "key", b"{}", count=1, chunks=2, turns=1, seconds=5, spread=0)
    assert (seen.chunks, seen.errors) == (0, 1)


def test_a_node_that_never_answers_ends_with_the_time_given() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1/chat/completions"
        seen = streams.follow(url, "key", b"{}", count=3, chunks=2, turns=1, seconds=0.2, spread=0)
    assert (seen.chunks, seen.errors) == (0, 3)
