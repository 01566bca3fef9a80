"""Many streams at once, read as they come: what came, in which order, how late, and which chunks came by themselves."""

from __future__ import annotations

import asyncio
import math
import re
import time
from dataclasses import dataclass, field
from typing import Final, cast
from urllib.parse import urlsplit

import uvloop

from benchmarks.side_by_side.samples import percentile

# Which chunk of its stream it is, and when it left the node (benchmarks/mock_node.py).
STAMP: Final = re.compile(rb"n=(\d+) sent=([\d.]+)")
DONE: Final = b"data: [DONE]"
# Two reads of one chunk have at most this much of it in the first.
LONGEST_STAMP: Final = 40


@dataclass
class Followed:
    """What all streams of a run saw. Times are seconds."""

    first_bytes: list[float] = field(default_factory=list)
    transits: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    chunks: int = 0
    alone: int = 0
    out_of_order: int = 0
    whole: int = 0
    errors: int = 0


class Reader(asyncio.Protocol):
    """One stream on a connection of its own, from the question to `[DONE]`."""

    def __init__(self, asked: bytes, expected: int, seen: Followed, finished: asyncio.Future[None]) -> None:
        self._asked, self._expected, self._seen, self._finished = asked, expected, seen, finished
        self._next, self._before, self._tail, self._status = 0, 0.0, b"", b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._began = time.monotonic()
        self._transport.write(self._asked)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        self._status = self._status or data[:12]
        text = self._tail + data
        last = 0
        stamps = 0
        for match in STAMP.finditer(text):
            if match.end() == len(text):  # perhaps cut in two: the rest comes with the next read
                break
            self._chunk(int(match[1]), float(match[2]), now)
            last, stamps = match.end(), stamps + 1
        self._seen.alone += stamps == 1
        self._tail = text[max(last, len(text) - LONGEST_STAMP) :]
        if DONE in text[last:]:
            self._end(whole=self._next == self._expected and self._status.endswith(b"200"))

    def _chunk(self, number: int, sent: float, now: float) -> None:
        if self._next == 0:
            self._seen.first_bytes.append(now - self._began)
        else:
            self._seen.gaps.append(now - self._before)
        self._seen.out_of_order += number != self._next
        self._seen.transits.append(now - sent)
        self._seen.chunks += 1
        self._next, self._before = number + 1, now

    def _end(self, *, whole: bool) -> None:
        if not self._finished.done():
            self._seen.whole += whole
            self._seen.errors += not whole
            self._finished.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(whole=False)


def follow(
    url: str, key: str, body: bytes, *, count: int, chunks: int, turns: int, seconds: float, spread: float
) -> Followed:
    """`count` streams at once, begun over `spread` seconds, each `turns` times. Ends after `seconds` in any case."""
    return uvloop.run(_follow_all(url, key, body, count, chunks, turns, seconds, spread))


async def _follow_all(
    url: str, key: str, body: bytes, count: int, chunks: int, turns: int, seconds: float, spread: float
) -> Followed:
    parts = urlsplit(url)
    head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {key}\r\n"
    asked = f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    seen, loop = Followed(), asyncio.get_running_loop()
    host, port = parts.hostname or "", parts.port or 80

    async def one(number: int) -> None:
        await asyncio.sleep(spread * number / count)
        for _ in range(turns):
            finished: asyncio.Future[None] = loop.create_future()
            reader = Reader(asked, chunks, seen, finished)
            try:
                transport, _ = await loop.create_connection(lambda reader=reader: reader, host, port)  # type: ignore[misc]  # mypy does not see a default of a lambda
            except OSError:
                seen.errors += 1
                continue
            try:
                await finished
            finally:
                transport.abort()

    tasks = [asyncio.create_task(one(number)) for number in range(count)]
    _, late = await asyncio.wait(tasks, timeout=seconds)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    seen.errors += len(late)
    return seen


def figures(seen: Followed, *, expected: int) -> dict[str, float]:
    """Named with their units. `missing` counts chunks that never came."""
    return {
        "chunks": seen.chunks,
        "missing": expected - seen.chunks,
        "out_of_order": seen.out_of_order,
        "alone_percent": 100 * seen.alone / seen.chunks if seen.chunks else math.nan,
        "first_p50_ms": percentile(seen.first_bytes, 0.5) * 1000,
        "first_p99_ms": percentile(seen.first_bytes, 0.99) * 1000,
        "transit_p50_ms": percentile(seen.transits, 0.5) * 1000,
        "transit_p99_ms": percentile(seen.transits, 0.99) * 1000,
        "transit_max_ms": percentile(seen.transits, 1) * 1000,
        "gap_p99_ms": percentile(seen.gaps, 0.99) * 1000,
    }
