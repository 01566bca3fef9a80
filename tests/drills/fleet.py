"""What most drills need: nodes that are routed to, a steady load, and what of it was lost."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.blackbox.conftest import models
from tests.drills.clients import Answer, Clients, paced, request
from tests.support.node_process import NodeProcess
from tests.support.product import Product, wait_until


def routed(product: Product, *nodes: NodeProcess) -> list[int]:
    """Registers the nodes, without a limit of requests, and returns their ids when their models are offered."""
    ids = [int(product.add_node(f"node-{node.port}", node.url)["id"]) for node in nodes]
    for number in ids:
        product.request("PUT", f"/api/nodes/{number}", json={"max_concurrency": 0}).raise_for_status()
    wanted = {model for node in nodes for model in node.models}
    wait_until(lambda: wanted <= models(product), seconds=10, what="their models are offered")
    return ids


def status_of(product: Product, node: int) -> str:
    return str(product.get(f"/api/nodes/{node}").json()["status"])


def children(product: Product) -> set[int]:
    """The process ids of the gateways that one `serve` runs."""
    pid = product.process.pid
    return {int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def memory(product: Product) -> int:
    """Resident bytes of the product's process."""
    status = Path(f"/proc/{product.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def seconds_until(reached: Callable[[], object], *, within: float) -> float:
    """How long that takes; infinity where it takes longer than `within`. Of what a drill measures."""
    began = time.monotonic()
    try:
        wait_until(reached, seconds=within, what="it is reached")
    except AssertionError:
        return math.inf
    return time.monotonic() - began


def held(product: Product) -> tuple[int, int]:
    """Slots that are taken on nodes, and requests that wait for one, as the product itself tells."""
    text = product.get("/metrics").text
    slots = sum(float(value) for value in re.findall(r"^llmlb_in_flight\S* (\S+)", text, re.M))
    waiting = sum(float(value) for value in re.findall(r"^llmlb_queue_size\S* (\S+)", text, re.M))
    return int(slots), int(waiting)


async def load(
    product: Product, *, rate: float, seconds: float, beside: Callable[[], None] = lambda: None
) -> list[Answer | None]:
    """Whole answers asked for at `rate` a second for so long, while something is done in a thread."""
    clients = Clients(product)
    doing = asyncio.create_task(asyncio.to_thread(beside))
    answers = await paced(clients, request(product), rate=rate, count=round(rate * seconds))
    await doing
    clients.close()
    return answers


def lost(answers: Sequence[Answer | None]) -> int:
    return sum(answer is None or answer.status != 200 or not answer.whole for answer in answers)


def loss(answers: Sequence[Answer | None]) -> str:
    """How many are lost of how many, and if any, what came instead: statuses, 0 being no answer."""
    statuses = Counter(answer.status if answer and answer.whole else 0 for answer in answers)
    return f"{lost(answers)} of {len(answers)} lost" + (f" {dict(statuses)}" if lost(answers) else "")
