"""Clients that the gateway could use towards nodes, side by side. `python -m benchmarks.upstream_clients [SECONDS]`

Each runs in a process of its own, pinned to one core, against the mock node on the other; rounds are interleaved.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

import uvloop

from tests.support.product import free_port

BODY = b'{"model":"bench","messages":[{"role":"user","content":"' + b"word " * 180 + b'"}]}'
CLIENTS = ("own", "aiohttp", "httpx")
CONNECTIONS = (16, 256)
ROUNDS = 3

Ask = Callable[[], Awaitable[None]]


async def measure(name: str, port: int, connections: int, seconds: float) -> None:
    ask, close = await OPENERS[name](f"http://127.0.0.1:{port}")
    await asyncio.gather(*[ask() for _ in range(connections)])
    done = 0
    before, end = time.process_time(), time.monotonic() + seconds

    async def loop() -> None:
        nonlocal done
        while time.monotonic() < end:
            await ask()
            done += 1

    await asyncio.gather(*[loop() for _ in range(connections)])
    print(f"{(time.process_time() - before) / done * 1e6:.1f} {done / seconds:.0f}")
    await close()


async def open_own(url: str) -> tuple[Ask, Ask]:
    from llmlb_site.lib.upstream.base import Target
    from llmlb_site.lib.upstream.client import PooledClient

    client, target = PooledClient(connect_timeout=5), Target(url)
    headers = [(b"content-type", b"application/json")]

    async def ask() -> None:
        answer = await client.send(target, "POST", "/v1/chat/completions", headers, BODY, silence=30)
        while await answer.read():
            pass
        answer.close()

    return ask, client.aclose


async def open_aiohttp(url: str) -> tuple[Ask, Ask]:
    import aiohttp

    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def ask() -> None:
        async with session.post(f"{url}/v1/chat/completions", data=BODY) as answer:
            await answer.read()

    return ask, session.close


async def open_httpx(url: str) -> tuple[Ask, Ask]:
    import httpx

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    client = httpx.AsyncClient(limits=limits, timeout=30, trust_env=False)

    async def ask() -> None:
        await client.post(f"{url}/v1/chat/completions", content=BODY)

    return ask, client.aclose


OPENERS = {"own": open_own, "aiohttp": open_aiohttp, "httpx": open_httpx}


def main(seconds: float) -> None:
    port = free_port()
    node = subprocess.Popen([sys.executable, "-m", "benchmarks.mock_node", str(port)])
    os.sched_setaffinity(node.pid, {1})
    time.sleep(1)
    print(f"median of {ROUNDS} interleaved rounds of {seconds:g} s")
    print("connections  client   CPU µs/req  req/s")
    try:
        for connections in CONNECTIONS:
            results: dict[str, list[tuple[float, float]]] = {name: [] for name in CLIENTS}
            for _ in range(ROUNDS):
                for name in CLIENTS:
                    results[name].append(run_one(name, port, connections, seconds))
            for name in CLIENTS:
                cpu, rate = (statistics.median(column) for column in zip(*results[name], strict=True))
                print(f"{connections:>11}  {name:<8} {cpu:>10.0f}  {rate:>6.0f}")
    finally:
        node.terminate()
        node.wait()


def run_one(name: str, port: int, connections: int, seconds: float) -> tuple[float, float]:
    command = [sys.executable, "-m", "benchmarks.upstream_clients", name, str(port), str(connections), str(seconds)]
    out = subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds + 60).stdout
    cpu, rate = out.split()
    return float(cpu), float(rate)


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in OPENERS:
        os.sched_setaffinity(0, {0})
        uvloop.run(measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
    else:
        main(float(sys.argv[1]) if len(sys.argv) > 1 else 3.0)
