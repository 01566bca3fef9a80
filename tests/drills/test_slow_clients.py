"""Clients that send or read as slowly as they can: what the others notice, and when the slow ones are cut."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from tests.blackbox.conftest import MakeProduct
from tests.drills.clients import Clients, head, percentile, request
from tests.drills.conftest import Drill, MakeNodeProcess
from tests.drills.fleet import held, routed
from tests.support.node_process import NodeProcess
from tests.support.product import Product, wait_until

# Connections and files that come and go by themselves: to the database, to nodes.
TOLERATED: Final = 5
DRIBBLE_SECONDS: Final = 2.0
OTHERS: Final = 8

SlowClient = Callable[[Product], Awaitable[None]]


async def slow_header(product: Product) -> None:
    """A head that never ends, a byte at a time."""
    await dribble(product, b"POST /v1/chat/completions HTTP/1.1\r\nHost: drill\r\nX-Slow: ")


async def slow_body(product: Product) -> None:
    """A body that never ends, a byte at a time."""
    await dribble(product, head(product, "/v1/chat/completions", 5000) + b'{"model": "model-a", "x": "')


async def slow_reader(product: Product, model: str = "model-long") -> None:
    """A stream of 200 KB that is never read, with as little room for it as the kernel gives."""
    mine = socket.socket()
    mine.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    mine.setblocking(False)
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_connect(mine, ("127.0.0.1", product.port))
        await loop.sock_sendall(mine, request(product, model=model, stream=True))
        await loop.create_future()
    finally:
        mine.close()


async def endless_reader(product: Product) -> None:
    """A stream that is longer than what any kernel keeps, so that a node waits for its reader."""
    await slow_reader(product, "model-endless")


async def dribble(product: Product, beginning: bytes) -> None:
    """Returns when the connection is cut."""
    reader, writer = await asyncio.open_connection("127.0.0.1", product.port)
    try:
        writer.write(beginning)
        while not reader.at_eof():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reader.read(4096), DRIBBLE_SECONDS)
            writer.write(b"x")
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()


async def others(product: Product, seconds: float) -> list[float]:
    """What everybody else waits for whole answers meanwhile."""
    clients, data = Clients(product), request(product)
    end = time.monotonic() + seconds
    waited: list[float] = []

    async def one() -> None:
        while time.monotonic() < end:
            answer = await clients.ask(data)
            assert answer is not None
            assert answer.status == 200, answer.body
            waited.append(answer.seconds)

    await asyncio.gather(*(one() for _ in range(OTHERS)))
    clients.close()
    return waited


@contextlib.asynccontextmanager
async def attack(product: Product, slow: SlowClient, count: int) -> AsyncIterator[None]:
    """So many slow clients at once, all of them connected."""
    tasks = []
    for number in range(count):
        tasks.append(asyncio.ensure_future(slow(product)))
        if number % 50 == 0:
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.3)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def in_turns(
    product: Product, slow: SlowClient, *, count: int, rounds: int, seconds: float
) -> tuple[float, float]:
    """The others' p99 without and with the slow clients, in seconds: measured in turns, so that noise cancels."""
    quiet: list[float] = []
    attacked: list[float] = []
    for _ in range(rounds):
        quiet += await others(product, seconds)
        async with attack(product, slow, count):
            await all_answered(product)
            attacked += await others(product, seconds)
    return percentile(quiet, 0.99), percentile(attacked, 0.99)


async def all_answered(product: Product) -> None:
    """What is measured is slow clients, not how much this machine can pass on while their streams fill the kernel."""
    await asyncio.to_thread(wait_until, lambda: held(product) == (0, 0), seconds=60, what="streams are over")


async def connections_left(product: Product, slow: SlowClient, *, count: int, patience: float) -> tuple[int, float]:
    """How many of the slow clients the product still has in the end, and after how many seconds that was."""
    before = await settled_descriptors(product)
    async with attack(product, slow, count):
        began = time.monotonic()
        assert descriptors(product) - before > count * 0.9, "they are connected"
        while (left := descriptors(product) - before) > TOLERATED and time.monotonic() - began < patience:
            await asyncio.sleep(0.2)
        return max(0, left - TOLERATED), time.monotonic() - began


async def settled_descriptors(product: Product) -> int:
    """How many it has when the clients before are gone. Idle connections to nodes are kept, and are among them."""
    seen = [0]
    while len(set(seen[-4:])) > 1 or len(seen) < 4:
        await asyncio.sleep(0.4)
        seen.append(descriptors(product))
    return seen[-1]


def descriptors(product: Product) -> int:
    return len(os.listdir(f"/proc/{product.process.pid}/fd"))


def test_slow_clients(product: MakeProduct, node_process: MakeNodeProcess, drill: Drill) -> None:
    patience = 10 if drill.full else 2
    running = product(environment={"LLMLB_CLIENT_TIMEOUT_SECS": str(patience)}).start()
    long = long_node(node_process, "model-long", chunks=8)
    endless = long_node(node_process, "model-endless", chunks=1_000_000)
    routed(running, node_process(latency=0.02), long, endless)
    for slow in (slow_header, slow_body, slow_reader):
        the_others_are_not_slowed(running, slow, drill)
    for slow, count in ((slow_header, 1000), (slow_body, 1000), (endless_reader, 50)):
        they_are_cut(running, slow, drill, count=count if drill.full else count // 10, patience=patience)
    wait_until(lambda: endless.state()["in_flight"] == 0, seconds=5, what="the node is told")
    assert running.stop() == 0, running.output
    assert "Traceback" not in running.output


def the_others_are_not_slowed(product: Product, slow: SlowClient, drill: Drill) -> None:
    """In short form that all of them are served is enough: what 100 answers took says nothing of a percent."""
    count, rounds, seconds = (1000, 4, 5.0) if drill.full else (100, 1, 0.5)
    quiet, attacked = asyncio.run(in_turns(product, slow, count=count, rounds=rounds, seconds=seconds))
    drill.record(
        f"{count} clients, {named(slow)}: the others",
        f"p99 {quiet * 1000:.1f} → {attacked * 1000:.1f} ms ({attacked / quiet - 1:+.0%})",
        goal="p99 within 10%" if drill.full else "all served",
        ok=attacked <= 1.1 * quiet or not drill.full,
    )


def they_are_cut(product: Product, slow: SlowClient, drill: Drill, *, count: int, patience: float) -> None:
    left, after = asyncio.run(connections_left(product, slow, count=count, patience=2 * patience + 5))
    drill.record(
        f"{count} clients, {named(slow)}: cut",
        f"{left} left after {after:.0f} s with LLMLB_CLIENT_TIMEOUT_SECS={patience:.0f}",
        goal="none left",
        ok=left == 0,
    )


def named(slow: SlowClient) -> str:
    return slow.__name__.replace("_", " ")


def test_half_a_million_tiny_messages(one_product: Product, node_process: MakeNodeProcess, drill: Drill) -> None:
    """A body that costs much to understand, to a node that does not say how many tokens it was."""
    times = 10 if drill.full else 2
    routed(one_product, node_process(latency=0.02), node_process(("model-huge",), tells_usage=False))
    message = b'{"role":"user","content":"a"}'
    body = b'{"model":"model-huge","messages":[%b]}' % b",".join([message] * 500_000)

    async def run() -> tuple[list[float], list[float]]:
        quiet = await others(one_product, 3)
        meanwhile = asyncio.create_task(others(one_product, times * 1.5))
        clients = Clients(one_product)
        for _ in range(times):
            answer = await clients.ask(head(one_product, "/v1/chat/completions", len(body)) + body)
            assert answer is not None
            assert answer.status == 200
        clients.close()
        return quiet, await meanwhile

    quiet, attacked = asyncio.run(run())
    drill.record(
        f"{times} bodies of 500 000 messages ({len(body) / 1e6:.0f} MB): the others",
        f"longest wait {max(quiet) * 1000:.0f} → {max(attacked) * 1000:.0f} ms",
        goal="≤ 250 ms more" if drill.full else "all served",
        ok=max(attacked) - max(quiet) <= 0.25 or not drill.full,
    )


def long_node(node_process: MakeNodeProcess, model: str, *, chunks: int) -> NodeProcess:
    """A node with chunks of 24 KB: its name is in each of them three times."""
    return node_process((model,), name="x" * 8000, chunks=chunks, chunk_interval=0.02)
