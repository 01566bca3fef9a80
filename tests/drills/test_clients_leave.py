"""Clients that leave in every state of a request, whatever they asked: the node stops, and nothing stays behind."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.blackbox.conftest import MakeProduct
from tests.drills.clients import APIS, DIALECTS, TRANSCRIPTION, Client, percentile, request
from tests.drills.conftest import Drill, MakeNodeProcess
from tests.drills.fleet import held, routed, seconds_until
from tests.support.node_process import NodeProcess
from tests.support.product import Product, wait_until

# A model of a node that serves every API, of one that knows chat alone, and of a cloud provider.
NATIVE, TRANSLATED, CLOUD = "model-a", "model-b", "openai:model-c"
Way = tuple[str, str]  # what is asked: the API, and the model
TEXTS: Final[list[Way]] = [
    *((dialect, NATIVE) for dialect in DIALECTS),
    *((dialect, TRANSLATED) for dialect in ("responses", "messages")),
    *((dialect, CLOUD) for dialect in ("chat", "messages")),
]
STREAMED: Final[list[Way]] = [*TEXTS, ("speech", NATIVE), ("images", NATIVE), (TRANSCRIPTION, NATIVE)]
WHOLE: Final[list[Way]] = [*STREAMED, ("embeddings", NATIVE), ("embeddings", CLOUD), ("rerank", NATIVE)]
SOUND_IS_STREAMED: Final = "speech"  # in any case: it is not asked for
TOLD_SECONDS: Final = 20.0
LONG: Final = {"latency": 60.0}


@dataclass(frozen=True, slots=True)
class State:
    """In which a client leaves: whether it had asked for a stream, and what of it has come; how nodes behave."""

    ways: list[Way]
    behaviour: dict[str, Any]
    streamed: bool = True
    begun: bool = False


STATES: Final = {
    "before the first byte": State(STREAMED, LONG),
    "mid-stream": State(STREAMED, {"latency": 0.0, "chunks": 1000, "chunk_interval": 0.5}, begun=True),
    "not streaming": State(WHOLE, LONG, streamed=False),
}
Asking = list[tuple[str, Client]]  # the id of each request, and who waits for its answer
_numbers: Final = itertools.count()


async def leave(product: Product, nodes: Sequence[NodeProcess], state: State, *, count: int) -> dict[Way, list[float]]:
    """So many clients ask in each way, and leave when the nodes are at work on all of them.

    Returns: how long after each of them its node was told, in seconds; infinity where that was never.
    """
    for node in nodes:
        await asyncio.to_thread(node.behave, **state.behaviour)
    asking = {way: await ask(product, way, stream=state.streamed, count=count) for way in state.ways}
    clients = [client for each in zip(*asking.values(), strict=True) for client in each]  # of all ways in turns
    await asyncio.to_thread(wait_until, lambda: at_work(nodes) == len(clients), seconds=20, what="all are at work")
    if state.begun:
        await asyncio.gather(*(client.read_some() for _id, client in clients))
    left = await abort(clients)
    await asyncio.to_thread(seconds_until, lambda: at_work(nodes) == 0, within=TOLD_SECONDS)
    told: dict[str, float] = {}
    for node in nodes:
        told.update((await asyncio.to_thread(node.state))["aborted_at"])
    return {way: [told.get(id, math.inf) - left[id] for id, _client in asking[way]] for way in asking}


def at_work(nodes: Sequence[NodeProcess]) -> int:
    return sum(node.state()["in_flight"] for node in nodes)


async def ask(product: Product, way: Way, *, stream: bool, count: int) -> Asking:
    api, model = way
    clients = [(f"{api}-{next(_numbers)}", Client(product)) for _ in range(count)]
    wanted = stream and api != SOUND_IS_STREAMED
    await asyncio.gather(
        *(client.send(request(product, api, model=model, stream=wanted, id=id)) for id, client in clients)
    )
    return clients


async def abort(clients: Asking) -> dict[str, float]:
    """When each of them left. They leave one after the other, as people do."""
    left = {}
    for id, client in clients:
        left[id] = time.monotonic()
        client.abort()
        await asyncio.sleep(0.001)
    return left


def test_clients_that_leave(product: MakeProduct, node_process: MakeNodeProcess, drill: Drill) -> None:
    rounds, count = (6, 50) if drill.full else (1, 5)
    native = node_process((NATIVE,), apis=("/v1/responses", "/v1/messages"))
    translated = node_process((TRANSLATED,))
    cloud = node_process((CLOUD.partition(":")[2],))
    running = product(environment={"OPENAI_API_KEY": "sk-drill", "OPENAI_BASE_URL": cloud.url}).start()
    number, _translated = routed(running, native, translated)
    everything = 0
    for name, state in STATES.items():
        seconds: defaultdict[Way, list[float]] = defaultdict(list)
        for _ in range(rounds):
            for way, told in asyncio.run(leave(running, (native, translated, cloud), state, count=count)).items():
                seconds[way] += told
        everything += record_told(name, seconds, drill)
    everything += leave_the_queue(running, native, number, drill, count=count)
    seconds_until(lambda: held(running) == (0, 0), within=5)
    slots, waiting = held(running)
    drill.record(
        f"after {everything} clients that left",
        f"{slots} slots held, {waiting} waiting",
        goal="0 held",
        ok=(slots, waiting) == (0, 0),
    )
    assert running.stop() == 0, running.output
    assert "Traceback" not in running.output


def record_told(state: str, seconds: dict[Way, list[float]], drill: Drill) -> int:
    """How soon the nodes were told, of all clients together and of those who asked in the slowest way. Returns: how
    many clients there were."""
    everyone = [each for told in seconds.values() for each in told]
    slowest = max(seconds, key=lambda way: percentile(seconds[way], 0.99))
    p50, p99, worst = percentile(everyone, 0.5), percentile(everyone, 0.99), percentile(seconds[slowest], 0.99)
    drill.record(
        f"{len(everyone)} clients leave {state}, who had asked in {len(seconds)} ways: the node is told",
        f"p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms; the slowest: {' '.join(slowest)}, {worst * 1000:.0f} ms",
        goal="p99 ≤ 100 ms in each way",
        ok=worst <= 0.1,
    )
    return len(everyone)


def leave_the_queue(product: Product, node: NodeProcess, number: int, drill: Drill, *, count: int) -> int:
    """Clients leave while they wait for a node that is busy. Returns: how many."""
    product.request("PUT", f"/api/nodes/{number}", json={"max_concurrency": 1}).raise_for_status()
    node.behave(**LONG)
    before = node.state()["inferences"]

    async def run() -> None:
        hog = await ask(product, ("chat", NATIVE), stream=False, count=1)
        await asyncio.to_thread(wait_until, lambda: node.state()["in_flight"] == 1, seconds=10, what="it is busy")
        for api in APIS:
            clients = await ask(product, (api, NATIVE), stream=api in DIALECTS, count=count)
            await asyncio.to_thread(wait_until, lambda: held(product)[1] == count, seconds=10, what="all wait")
            await abort(clients)
            await asyncio.to_thread(seconds_until, lambda: held(product)[1] == 0, within=10)
        await abort(hog)

    asyncio.run(run())
    seconds_until(lambda: node.state()["in_flight"] == 0, within=5)
    called = node.state()["inferences"] - before - 1
    drill.record(
        f"{count * len(APIS)} clients leave the queue, of {len(APIS)} APIs",
        f"{called} of them reached the node",
        goal="0",
        ok=called == 0,
    )
    return count * len(APIS) + 1
