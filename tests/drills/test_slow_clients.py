"""Clients that send or read as slowly as they can: what the others notice, and when the slow ones are cut."""

from __future__ import annotations

import asyncio
import contextlib
import math
import multiprocessing
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import uvloop

from tests.blackbox.conftest import MakeProduct
from tests.drills.clients import Answer, Clients, Door, head, paced, percentile, request
from tests.drills.conftest import Drill, MakeNodeProcess
from tests.drills.fleet import held, lost, routed
from tests.support.node_process import NodeProcess
from tests.support.product import Product, wait_until

# Connections and files that come and go by themselves: to the database, to nodes.
TOLERATED: Final = 5
DRIBBLE_SECONDS: Final = 2.0
OTHERS_RATE: Final = 200.0  # requests a second
SETTLE_SECONDS: Final = 1.0  # for what comes after a request: its row in the history
# As on any network. What the kernel keeps for a connection grows with it, and that of the loopback interface is 64 KB.
SEGMENT_BYTES: Final = 1400
ESTABLISHED: Final = "01"  # in /proc/net/tcp

SlowClient = Callable[[Product], Awaitable[None]]


async def slow_header(product: Product) -> None:
    """A head that never ends, a byte at a time."""
    await dribble(product, b"POST /v1/chat/completions HTTP/1.1\r\nHost: drill\r\nX-Slow: ")


async def slow_body(product: Product) -> None:
    """A body that never ends, a byte at a time."""
    await dribble(product, head(product, "/v1/chat/completions", 5000) + b'{"model": "model-a", "x": "')


async def slow_reader(product: Product, model: str = "model-long") -> None:
    """A stream that is never read, and longer than what the kernel keeps of it for this client."""
    mine = socket.socket()
    mine.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    mine.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_BYTES)
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


@dataclass(frozen=True, slots=True)
class Gateway:
    """See `Door`."""

    port: int
    key: str


def others(gateway: Gateway, seconds: float) -> list[Answer | None]:
    """What everybody else is answered meanwhile. To be called in a process of its own: a thousand slow clients in one
    event loop with those that are measured would be what is measured.
    """
    return uvloop.run(_others(gateway, seconds))


async def _others(gateway: Door, seconds: float) -> list[Answer | None]:
    clients = Clients(gateway)
    answers = await paced(clients, request(gateway), rate=OTHERS_RATE, count=round(OTHERS_RATE * seconds))
    clients.close()
    return answers


def p99_ms(answers: Sequence[Answer | None]) -> float:
    return percentile([answer.seconds * 1000 for answer in answers if answer], 0.99)


@contextlib.asynccontextmanager
async def attack(
    product: Product, slow: SlowClient, count: int, *, over: float = DRIBBLE_SECONDS
) -> AsyncIterator[None]:
    """So many slow clients at once, all of them connected: they come within `over` seconds, each in its own beat."""
    tasks = []
    for _ in range(count):
        tasks.append(asyncio.ensure_future(slow(product)))
        await asyncio.sleep(over / count)
    await asyncio.sleep(0.3)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(slots=True)
class Compared:
    """What the others were answered without and with slow clients, and how many of these there were at least."""

    slow: int
    quiet: list[Answer | None] = field(default_factory=list)
    attacked: list[Answer | None] = field(default_factory=list)


async def in_turns(
    product: Product, node: NodeProcess, slow: SlowClient, *, count: int, rounds: int, seconds: float
) -> Compared:
    """Measured in turns, so that noise cancels.

    With the slow clients only while all are there, and the node has given all that it has for them: what is measured is
    not how much this machine can pass on, but clients with whom nothing goes on.
    """
    found, gateway, loop = Compared(count), Gateway(product.port, product.key), asyncio.get_running_loop()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as elsewhere:
        for _ in range(rounds):
            await until(lambda: connections(product) == 0 and held(product) == (0, 0), "those before are gone")
            found.quiet += await loop.run_in_executor(elsewhere, others, gateway, seconds)
            async with attack(product, slow, count):
                await until(lambda: there(product, slow) >= count and node.state()["in_flight"] == 0, "all are there")
                found.attacked += await loop.run_in_executor(elsewhere, others, gateway, seconds)
                found.slow = min(found.slow, await asyncio.to_thread(there, product, slow))
    return found


async def until(reached: Callable[[], bool], what: str) -> None:
    await asyncio.to_thread(wait_until, reached, seconds=60, what=what)
    await asyncio.sleep(SETTLE_SECONDS)


def there(product: Product, slow: SlowClient) -> int:
    """How many of them the product has now: connections, and of readers the answers that it cannot get rid of."""
    return held(product)[0] if slow is slow_reader else connections(product)


def connections(product: Product) -> int:
    """How many clients the product has."""
    sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(each[1].endswith(f":{product.port:04X}") and each[3] == ESTABLISHED for each in sockets)


async def connections_left(product: Product, slow: SlowClient, *, count: int, patience: float) -> tuple[int, float]:
    """How many of the slow clients the product still has in the end, and after how many seconds that was."""
    before = await settled_descriptors(product)
    async with attack(product, slow, count, over=patience / 20):
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


def test_slow_clients_slow_nobody(product: MakeProduct, node_process: MakeNodeProcess, drill: Drill) -> None:
    running = product(environment={"LLMLB_CLIENT_TIMEOUT_SECS": "300"}).start()
    long = long_node(node_process, "model-long", chunks=16)
    routed(running, node_process(), long)
    for slow in (slow_header, slow_body, slow_reader):
        the_others_are_not_slowed(running, long, slow, drill)
    assert running.stop() == 0, running.output
    assert "Traceback" not in running.output


def the_others_are_not_slowed(product: Product, node: NodeProcess, slow: SlowClient, drill: Drill) -> None:
    """In short form that all of them are served is enough: what 100 answers took says nothing of a percent."""
    count, rounds, seconds = (1000, 4, 5.0) if drill.full else (100, 1, 0.5)
    # On a quick loop: the clients share it, and are not what is measured.
    found = uvloop.run(in_turns(product, node, slow, count=count, rounds=rounds, seconds=seconds))
    quiet, attacked, unserved = p99_ms(found.quiet), p99_ms(found.attacked), lost(found.quiet + found.attacked)
    drill.record(
        f"{count} clients, {named(slow)}: the others",
        f"p99 {quiet:.2f} → {attacked:.2f} ms ({attacked / quiet - 1:+.0%}), {unserved} lost, {found.slow} slow ones",
        goal=f"{'p99 within 10%' if drill.full else 'all served'}, {count} slow ones all along",
        ok=unserved == 0 and found.slow >= count and (attacked <= 1.1 * quiet or not drill.full),
    )


def test_slow_clients_are_cut(product: MakeProduct, node_process: MakeNodeProcess, drill: Drill) -> None:
    patience = 10 if drill.full else 2
    running = product(environment={"LLMLB_CLIENT_TIMEOUT_SECS": str(patience)}).start()
    endless = long_node(node_process, "model-endless", chunks=1_000_000)
    routed(running, endless)
    for slow, count in ((slow_header, 1000), (slow_body, 1000), (endless_reader, 50)):
        they_are_cut(running, slow, drill, count=count if drill.full else count // 10, patience=patience)
    wait_until(lambda: endless.state()["in_flight"] == 0, seconds=5, what="the node is told")
    assert running.stop() == 0, running.output
    assert "Traceback" not in running.output


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
    routed(one_product, node_process(), node_process(("model-huge",), tells_usage=False))
    message = b'{"role":"user","content":"a"}'
    body = b'{"model":"model-huge","messages":[%b]}' % b",".join([message] * 500_000)

    async def run() -> tuple[list[Answer | None], list[Answer | None], list[Answer | None]]:
        quiet = await _others(one_product, 3)
        meanwhile = asyncio.create_task(_others(one_product, times * 1.5))
        clients = Clients(one_product)
        asked = head(one_product, "/v1/chat/completions", len(body)) + body
        huge = [await clients.ask(asked) for _ in range(times)]
        clients.close()
        return huge, quiet, await meanwhile

    huge, quiet, attacked = asyncio.run(run())
    before, during, unserved = longest(quiet), longest(attacked), lost([*huge, *quiet, *attacked])
    drill.record(
        f"{times} bodies of 500 000 messages ({len(body) / 1e6:.0f} MB): the others",
        f"longest wait {before * 1000:.0f} → {during * 1000:.0f} ms, {unserved} lost",
        goal="≤ 250 ms more, 0 lost" if drill.full else "all served",
        ok=unserved == 0 and (during - before <= 0.25 or not drill.full),
    )


def longest(answers: Sequence[Answer | None]) -> float:
    return max((answer.seconds for answer in answers if answer), default=math.inf)


def long_node(node_process: MakeNodeProcess, model: str, *, chunks: int) -> NodeProcess:
    """A node with chunks of 24 KB: its name is in each of them three times."""
    return node_process((model,), name="x" * 8000, chunks=chunks, chunk_interval=0.02)
