"""Nodes that die, come back, hang and flap while they are needed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

from tests.blackbox.conftest import MakeProduct, models
from tests.drills.clients import DIALECTS, Answer, Clients, paced, request
from tests.drills.conftest import Drill, MakeNodeProcess
from tests.support.node_process import NodeProcess
from tests.support.product import Product, wait_until

# How a stream of each dialect says that no more will come.
TOLD = {
    "chat": rb'data: \{"error":',
    "completions": rb'data: \{"error":',
    "responses": rb"event: (error|response\.failed)",
    "messages": rb"event: error",
}


def routed(product: Product, *nodes: NodeProcess) -> list[int]:
    """Registers the nodes, without a limit of requests, and returns their ids when their models are offered."""
    ids = [int(product.add_node(f"node-{node.port}", node.url)["id"]) for node in nodes]
    for number in ids:
        product.request("PUT", f"/api/nodes/{number}", json={"max_concurrency": 0}).raise_for_status()
    wanted = {model for node in nodes for model in node.models}
    wait_until(lambda: wanted <= models(product), seconds=10, what="their models are offered")
    return ids


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
    lost = [answer for answer in answers if answer is None or answer.status != 200 or not answer.whole]
    drill.record(
        f"node SIGKILL at {rate:.0f} requests/s, a second one holds the model",
        f"{len(lost)} of {count} whole answers lost",
        goal="0 lost",
        ok=not lost,
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
