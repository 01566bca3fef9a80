"""Clients that leave in every state of a request: the node stops at once, and nothing stays behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from tests.drills.clients import DIALECTS, Client, percentile, request
from tests.drills.conftest import Drill, MakeNodeProcess
from tests.drills.fleet import held, routed
from tests.support.node_process import NodeProcess
from tests.support.product import Product, wait_until

# The state in which the client leaves → whether it had asked for a stream, and how the node behaves meanwhile.
LONG = {"latency": 60.0}
STATES = {
    "before the first byte": (True, LONG),
    "mid-stream": (True, {"latency": 0.0, "chunks": 1000, "chunk_interval": 0.05}),
    "not streaming": (False, LONG),
}


async def leave(product: Product, node: NodeProcess, dialect: str, state: str, *, count: int) -> list[float]:
    """So many clients ask, and leave when the node is at work on all of them.

    Returns: how long after each of them the node was told, in seconds.
    """
    stream, behaviour = STATES[state]
    await asyncio.to_thread(node.behave, **behaviour)
    clients = await ask(product, dialect, stream=stream, count=count)
    await asyncio.to_thread(wait_until, lambda: node.state()["in_flight"] == count, seconds=20, what="all are at work")
    if state == "mid-stream":
        await asyncio.gather(*(client.read_some() for _id, client in clients))
    left = await abort(clients)
    await asyncio.to_thread(wait_until, lambda: node.state()["in_flight"] == 0, seconds=20, what="the node is told")
    told = (await asyncio.to_thread(node.state))["aborted_at"]
    return [told[id] - at for id, at in left.items()]


async def ask(product: Product, dialect: str, *, stream: bool, count: int) -> list[tuple[str, Client]]:
    clients = [(f"{dialect}-{time.monotonic_ns()}", Client(product)) for _ in range(count)]
    await asyncio.gather(*(client.send(request(product, dialect, stream=stream, id=id)) for id, client in clients))
    return clients


async def abort(clients: Sequence[tuple[str, Client]]) -> dict[str, float]:
    """When each of them left. They leave one after the other, as people do."""
    left = {}
    for id, client in clients:
        left[id] = time.monotonic()
        client.abort()
        await asyncio.sleep(0.001)
    return left


def test_clients_that_leave(one_product: Product, node_process: MakeNodeProcess, drill: Drill) -> None:
    rounds, count = (17, 50) if drill.full else (1, 10)
    node = node_process(apis=("/v1/responses", "/v1/messages"))
    (number,) = routed(one_product, node)
    everything = 0
    for state in STATES:
        seconds: list[float] = []
        for dialect in DIALECTS:
            for _ in range(rounds):
                seconds += asyncio.run(leave(one_product, node, dialect, state, count=count))
        everything += len(seconds)
        p99 = percentile(seconds, 0.99)
        drill.record(
            f"{len(seconds)} clients leave {state}, in 4 dialects: the node is told",
            f"p50 {percentile(seconds, 0.5) * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms",
            goal="p99 ≤ 100 ms",
            ok=p99 <= 0.1,
        )
    everything += leave_the_queue(one_product, node, number, drill, count=count)
    wait_until(lambda: held(one_product) == (0, 0), seconds=5, what="nothing is held")
    drill.record(f"after {everything} clients that left", "0 slots held, 0 waiting", goal="0 held", ok=True)


def leave_the_queue(product: Product, node: NodeProcess, number: int, drill: Drill, *, count: int) -> int:
    """Clients leave while they wait for a node that is busy. Returns: how many."""
    product.request("PUT", f"/api/nodes/{number}", json={"max_concurrency": 1}).raise_for_status()
    node.behave(**LONG)
    before = node.state()["inferences"]

    async def run() -> None:
        hog = await ask(product, "chat", stream=False, count=1)
        await asyncio.to_thread(wait_until, lambda: node.state()["in_flight"] == 1, seconds=10, what="it is busy")
        for dialect in DIALECTS:
            clients = await ask(product, dialect, stream=True, count=count)
            await asyncio.to_thread(wait_until, lambda: held(product)[1] == count, seconds=10, what="all wait")
            await abort(clients)
            await asyncio.to_thread(wait_until, lambda: held(product)[1] == 0, seconds=10, what="none waits")
        await abort(hog)

    asyncio.run(run())
    wait_until(lambda: node.state()["in_flight"] == 0, seconds=5, what="the node is told")
    called = node.state()["inferences"] - before - 1
    drill.record(
        f"{count * len(DIALECTS)} clients leave the queue, in 4 dialects",
        f"{called} of them reached the node",
        goal="0",
        ok=called == 0,
    )
    return count * len(DIALECTS) + 1
