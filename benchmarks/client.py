"""A load generator on raw sockets: little CPU of its own, and exact about what came when."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass, field

# Which chunk of its stream it is, and when it left the node.
STAMP = re.compile(rb"n=(\d+) sent=([\d.]+)")


@dataclass
class Figures:
    """What a run saw. Times are seconds."""

    latencies: list[float] = field(default_factory=list)
    transits: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    first_bytes: list[float] = field(default_factory=list)
    errors: int = 0
    chunks: int = 0
    out_of_order: int = 0


def request(key: str, body: bytes, path: str = "/v1/chat/completions") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def closed_loop(port: int, data: bytes, *, connections: int, seconds: float) -> Figures:
    """Each connection asks again as soon as it was answered."""
    figures = Figures()
    end = time.monotonic() + seconds
    await asyncio.gather(*[_ask_until(port, data, end, figures) for _ in range(connections)])
    return figures


async def _ask_until(port: int, data: bytes, end: float, figures: Figures) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while (began := time.monotonic()) < end:
        writer.write(data)
        head = await reader.readuntil(b"\r\n\r\n")
        lower = head.lower()
        at = lower.find(b"content-length:")
        await reader.readexactly(int(lower[at + 15 :].split(b"\r\n", 1)[0]))
        figures.latencies.append(time.monotonic() - began)
        figures.errors += not head.startswith(b"HTTP/1.1 200")
    writer.close()


async def streams(port: int, data: bytes, *, count: int, spread: float = 0.5) -> Figures:
    """`count` streams at once, begun over `spread` seconds."""
    figures = Figures()
    await asyncio.gather(*[_follow(port, data, figures, spread * n / count) for n in range(count)])
    return figures


async def _follow(port: int, data: bytes, figures: Figures, delay: float) -> None:
    await asyncio.sleep(delay)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    began = time.monotonic()
    writer.write(data)
    await reader.readuntil(b"\r\n\r\n")
    expected, before = 0, 0.0
    while True:
        line = await reader.readline()
        now = time.monotonic()
        if not line:
            figures.errors += 1
            break
        if not line.startswith(b"data: "):
            continue
        if line.startswith(b"data: [DONE]"):
            break
        match = STAMP.search(line)
        if match is None:
            figures.errors += b'"error"' in line
            continue
        number, sent = int(match[1]), float(match[2])
        if expected == 0:
            figures.first_bytes.append(now - began)
        else:
            figures.gaps.append(now - before)
        figures.out_of_order += number != expected
        figures.transits.append(now - sent)
        figures.chunks += 1
        expected, before = number + 1, now
    writer.close()


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")
