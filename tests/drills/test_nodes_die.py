"""Nodes that die, come back, hang and flap while they are needed."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest

from tests.blackbox.conftest import MakeProduct
from tests.drills.clients import DIALECTS, Answer, Clients, paced, percentile, request
from tests.drills.conftest import Drill, MakeNodeProcess, is_full
from tests.drills.fleet import load, loss, lost, memory, routed, status_of
from tests.support.node_process import NodeProcess
from tests.support.product import Product, wait_until

# How a stream of each dialect says that no more will come.
TOLD = {
    "chat": rb'data: \{"error":',
    "completions": rb'data: \{"error":',
    "responses": rb"event: (error|response\.failed)",
    "messages": rb"event: error",
}


async def kill_under_load(
    product: Product, victim: NodeProcess, *, rate: float, count: int, streams: int
) -> tuple[list[Answer | None], dict[str, list[Answer | None]]]:
    """`count` whole answers asked for at `rate` a second, beside streams of every dialect; a third in, a node dies."""
    whole, streamed = Clients(product), Clients(product)
    following = {
        dialect: [asyncio.create_task(streamed.ask(request(product, dialect, stream=True))) for _ in range(streams)]
        for dialect in DIALECTS
    }
    load = asyncio.create_task(paced(whole, request(product), rate=rate, count=count))
    await asyncio.sleep(count / rate / 3)
    await asyncio.to_thread(victim.kill)
    answers = await load
    cut = {dialect: list(await asyncio.gather(*tasks)) for dialect, tasks in following.items()}
    whole.close()
    streamed.close()
    return answers, cut


def untold(cut: dict[str, list[Answer | None]]) -> list[tuple[str, bytes]]:
    """Streams that neither came to their end nor said in their dialect that they will not."""
    bad = []
    for dialect, answers in cut.items():
        end = DIALECTS[dialect][2]
        for answer in answers:
            body = answer.body if answer is not None else b""
            if (end in body) == bool(re.search(TOLD[dialect], body)):
                bad.append((dialect, body[-300:]))
    return bad


def count_cut(cut: dict[str, list[Answer | None]]) -> int:
    answers: Sequence[tuple[str, Answer | None]] = [(name, each) for name, all_of in cut.items() for each in all_of]
    return sum(answer is None or DIALECTS[name][2] not in answer.body for name, answer in answers)


def test_a_node_killed_under_load_loses_no_answer(
    product: MakeProduct, node_process: MakeNodeProcess, drill: Drill
) -> None:
    rate, count, streams = (500.0, 4500, 50) if drill.full else (150.0, 450, 5)
    running = product().start()
    shape = {"latency": 0.05, "chunks": 400, "chunk_interval": 0.01, "apis": ("/v1/responses", "/v1/messages")}
    victim, other = node_process(**shape), node_process(**shape)
    routed(running, victim, other)
    answers, cut = asyncio.run(kill_under_load(running, victim, rate=rate, count=count, streams=streams))
    drill.record(
        f"node SIGKILL at {rate:.0f} requests/s, a second one holds the model",
        loss(answers),
        goal="0 lost",
        ok=not lost(answers),
    )
    bad = untold(cut)
    drill.record(
        "streams of a killed node, in 4 dialects",
        f"{count_cut(cut)} of {4 * streams} cut, {len(bad)} of them not told {bad[:1] or ''}".strip(),
        goal="all told",
        ok=not bad and count_cut(cut) > 0,
    )
    assert running.stop() == 0, running.output
    assert "Traceback" not in running.output


@pytest.fixture
def fleet(one_product: Product, node_process: MakeNodeProcess) -> Iterator[tuple[Product, MakeNodeProcess]]:
    """The product of this file without a node, and what makes nodes."""
    yield one_product, node_process
    for node in one_product.get("/api/nodes").json()["nodes"]:
        one_product.request("DELETE", f"/api/nodes/{node['id']}").raise_for_status()


Fleet = tuple[Product, MakeNodeProcess]


@pytest.mark.skipif(not is_full(), reason="only in full: no time-out can be shorter than 10 s")
def test_a_node_that_accepts_and_never_answers(fleet: Fleet, drill: Drill) -> None:
    running, make = fleet
    rate, seconds = 100.0, 20.0
    silent, other = make(latency=0.02), make(latency=0.02)
    for number in routed(running, silent, other):
        running.request("PUT", f"/api/nodes/{number}", json={"inference_timeout_secs": 10}).raise_for_status()

    def freeze() -> None:
        time.sleep(1)
        silent.freeze()

    answers = asyncio.run(load(running, rate=rate, seconds=seconds, beside=freeze))
    waited = [answer.seconds for answer in answers if answer]
    late, longest = sum(second > 5 for second in waited), max(waited, default=math.inf)
    drill.record(
        "node that accepts and never answers (time-out 10 s), another one holds the model",
        f"{loss(answers)}, {late} waited for the time-out, the longest {longest:.1f} s",
        goal="0 lost, ≤ 11 s",
        ok=not lost(answers) and longest <= 11,
    )


def test_a_node_that_flaps(fleet: Fleet, drill: Drill) -> None:
    running, make = fleet
    rate, times = (200.0, 15) if drill.full else (50.0, 3)
    flapping, other = make(latency=0.02), make(latency=0.02)
    routed(running, flapping, other)

    def flap() -> None:
        for _ in range(times):
            time.sleep(0.5)
            flapping.kill()
            time.sleep(0.3)
            flapping.start()

    answers = asyncio.run(load(running, rate=rate, seconds=1.2 * times, beside=flap))
    drill.record(
        f"node that dies and comes back {times} times in {1.2 * times:.0f} s",
        f"{loss(answers)}, {sum(answer.attempts for answer in answers if answer)} attempts",
        goal="0 lost",
        ok=not lost(answers),
    )
    flapping.behave(mode="flap", latency=0.02)
    answers = asyncio.run(load(running, rate=rate, seconds=0.5 * times))
    drill.record(
        "node that answers every other request with 500",
        f"{loss(answers)}, {sum(answer.attempts for answer in answers if answer)} attempts",
        goal="0 lost",
        ok=not lost(answers),
    )


def test_a_node_that_comes_back_is_used_soon_and_slowly(fleet: Fleet, drill: Drill) -> None:
    running, make = fleet
    rounds = 3 if drill.full else 1
    away, steady = make(latency=0.02), make(latency=0.02)
    number, _other = routed(running, away, steady)
    took: list[float] = []
    shares = []
    for _ in range(rounds):
        away.kill()
        wait_until(lambda: status_of(running, number) == "offline", seconds=15, what="it is seen to be gone")
        away.start()
        began = time.monotonic()
        shares.append(asyncio.run(watch_return(running, away, steady, began, took, full=drill.full)))
    drill.record(
        "node back in traffic after it answers again",
        f"{', '.join(f'{seconds:.1f}' for seconds in took)} s",
        goal="≤ 5 s",
        ok=max(took) <= 5,
    )
    first, last = shares[-1]
    drill.record(
        "share of a node that came back: in its first second" + (", and 12 s later" if drill.full else ""),
        f"{first:.0%}" + (f", {last:.0%}" if drill.full else ""),
        goal="≤ 25%" + (", ≥ 40%" if drill.full else ""),
        ok=first <= 0.25 and (last >= 0.4 or not drill.full),
    )


async def watch_return(
    product: Product, away: NodeProcess, steady: NodeProcess, began: float, took: list[float], *, full: bool
) -> tuple[float, float]:
    """Under load until the node is used again. Returns: its share of the requests at first, and in the end."""
    clients, data = Clients(product), request(product)
    over = asyncio.Event()

    async def ask() -> None:
        while not over.is_set():
            await clients.ask(data)

    asking = [asyncio.create_task(ask()) for _ in range(4)]
    while not (await asyncio.to_thread(away.state))["inferences"] and time.monotonic() - began < 15:
        await asyncio.sleep(0.05)
    took.append(time.monotonic() - began)
    first = await share(away, steady, seconds=1)
    last = 0.0
    if full:
        await asyncio.sleep(12)
        last = await share(away, steady, seconds=1)
    over.set()
    await asyncio.gather(*asking)
    clients.close()
    return first, last


async def share(one: NodeProcess, other: NodeProcess, *, seconds: float) -> float:
    """How much of what both are asked in so long goes to the first."""

    def asked() -> tuple[int, int]:
        return one.state()["inferences"], other.state()["inferences"]

    before = await asyncio.to_thread(asked)
    await asyncio.sleep(seconds)
    after = await asyncio.to_thread(asked)
    mine, others = after[0] - before[0], after[1] - before[1]
    return mine / max(1, mine + others)


def test_every_node_down(fleet: Fleet, drill: Drill) -> None:
    running, make = fleet
    rate, seconds = (500.0, 20.0) if drill.full else (100.0, 3.0)
    nodes = [make(latency=0.02) for _ in range(3)]
    routed(running, *nodes)
    assert lost(asyncio.run(load(running, rate=rate, seconds=1))) == 0
    halfway: list[int] = []

    def kill() -> None:
        for node in nodes:
            node.kill()
        time.sleep(seconds / 2)
        halfway.append(memory(running))

    answers = asyncio.run(load(running, rate=rate, seconds=seconds, beside=kill))
    grown = memory(running) / halfway[0] - 1
    refused = [answer for answer in answers if answer is not None and answer.status == 503]
    attempts = sum(answer.attempts for answer in answers if answer)
    p99 = percentile([answer.seconds for answer in refused], 0.99)
    others = Counter(answer.status if answer else 0 for answer in answers if answer not in refused)
    drill.record(
        f"every node down at {rate:.0f} requests/s",
        f"{attempts} attempts for {len(answers)} requests, 503 in p99 {p99 * 1000:.0f} ms, "
        f"others {dict(others)}, memory {grown:+.1%} over the second half",
        goal="≤ 1.2 attempts a request, 503 at once, memory flat",
        ok=attempts <= 1.2 * len(answers) and len(refused) > 0.9 * len(answers) and p99 < 0.5 and grown < 0.05,
    )


def test_every_node_answers_errors(fleet: Fleet, drill: Drill) -> None:
    running, make = fleet
    rate, seconds = (500.0, 9.0) if drill.full else (100.0, 3.0)
    nodes = [make(status=500) for _ in range(3)]
    routed(running, *nodes)
    answers = asyncio.run(load(running, rate=rate, seconds=seconds))
    asked = sum(node.state()["inferences"] for node in nodes)
    drill.record(
        f"every node answers 500 at {rate:.0f} requests/s",
        f"{asked} requests at the nodes for {len(answers)} of the clients",
        goal="≤ 1.2 × (and 256 for the burst)",
        ok=asked <= 1.1 * len(answers) + 260,
    )
