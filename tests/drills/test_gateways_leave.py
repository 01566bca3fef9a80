"""Gateways that are stopped, renewed and killed while they are needed; and two that share a node."""

from __future__ import annotations

import asyncio
import math
import re
import signal
import time

import pytest

from tests.blackbox.conftest import MakeProduct
from tests.drills.balancers import Balancer, Front, haproxy, nginx
from tests.drills.clients import Answer, Client, Clients, Door, percentile, request
from tests.drills.conftest import Drill, MakeNodeProcess, needs_servers
from tests.drills.fleet import children, routed, seconds_until
from tests.support.product import Product, wait_until

FREE_SECONDS = 15.0
STREAM = {"chunks": 60, "chunk_interval": 0.05}  # three seconds


def broken(answers: list[Answer | None], end: bytes = b"") -> int:
    return sum(each is None or each.status != 200 or not each.whole or end not in each.body for each in answers)


def test_a_gateway_that_is_stopped_breaks_nothing(
    product: MakeProduct, node_process: MakeNodeProcess, drill: Drill
) -> None:
    count = 1000 if drill.full else 100
    running = product().start()
    node = node_process(latency=3.0, **STREAM)
    routed(running, node)

    async def stop_with_all_in_flight() -> tuple[list[Answer | None], list[Answer | None], float, int]:
        clients = Clients(running)
        whole = [asyncio.create_task(clients.ask(request(running))) for _ in range(count // 2)]
        streamed = [asyncio.create_task(clients.ask(request(running, stream=True))) for _ in range(count // 2)]
        await asyncio.to_thread(wait_until, lambda: in_flight(running) == count, seconds=20, what="all are in flight")
        running.process.send_signal(signal.SIGTERM)
        answers = list(await asyncio.gather(*whole)), list(await asyncio.gather(*streamed))
        began = time.monotonic()
        code = await asyncio.to_thread(running.wait)
        clients.close()
        return (*answers, time.monotonic() - began, code)

    whole, streamed, left, code = asyncio.run(stop_with_all_in_flight())
    cut = broken(whole) + broken(streamed, b"[DONE]")
    drill.record(
        f"gateway SIGTERM with {count} in flight, half of them streams",
        f"{cut} of {count} broken, gone {left:.1f} s after the last, exit code {code}",
        goal="0 broken, exit code 0",
        ok=cut == 0 and code == 0,
    )


def in_flight(product: Product) -> int:
    text = product.get("/metrics").text
    return round(sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("llmlb_in_flight{")))


async def closed_loop(
    door: Door, model: str, stop: asyncio.Event, *, clients: int, least: int, stream: bool = False
) -> list[Answer | None]:
    """So many clients, each with a connection that it keeps, one request after the other, `least` in all or more."""
    answers: list[Answer | None] = []

    async def ask() -> None:
        client = Client(door)
        while not stop.is_set() or len(answers) < least:
            try:
                answers.append(await client.ask(request(door, model=model, stream=stream)))
            except (OSError, asyncio.IncompleteReadError):
                client.abort()
                answers.append(None)
        client.abort()
        await asyncio.sleep(0)  # its end is noticed

    await asyncio.gather(*(ask() for _ in range(clients)))
    return answers


@needs_servers
def test_gateways_renewed_under_load_fail_nobody(
    two_gateways: list[Product], node_process: MakeNodeProcess, drill: Drill
) -> None:
    gateway = two_gateways[0]
    routed(gateway, node_process(("rolling",), latency=0.01))
    least = 10_000 if drill.full else 500
    before = children(gateway)

    async def renew() -> tuple[list[Answer | None], float]:
        stop = asyncio.Event()
        load = asyncio.create_task(closed_loop(gateway, "rolling", stop, clients=16, least=least))
        await asyncio.sleep(0.5)
        gateway.process.send_signal(signal.SIGHUP)
        took = await asyncio.to_thread(seconds_until, lambda: not children(gateway) & before, within=120)
        stop.set()
        return await load, took

    answers, took = asyncio.run(renew())
    failed = broken(answers)
    slow = percentile([each.seconds for each in answers if each is not None], 0.99) * 1000
    drill.record(
        "rolling restart of two processes (SIGHUP) under load",
        f"{failed} of {len(answers)} failed, p99 {slow:.0f} ms, both new after {took:.0f} s",
        goal="0 failed, both new",
        ok=failed == 0 and took < math.inf,
    )


@needs_servers
@pytest.mark.timeout(300)  # each start may take a minute
@pytest.mark.parametrize("balancer", [haproxy, nginx], ids=lambda balancer: balancer.__name__)
def test_hosts_restarted_behind_a_load_balancer_fail_nobody(
    two_gateways: list[Product], node_process: MakeNodeProcess, drill: Drill, balancer: Balancer
) -> None:
    model = f"behind-{balancer.__name__}"
    routed(two_gateways[0], node_process((model,), latency=0.01, chunks=10, chunk_interval=0.01))
    least = 10_000 if drill.full else 500

    async def restart_each(front: Front) -> tuple[list[Answer | None], list[Answer | None]]:
        stop = asyncio.Event()
        whole = asyncio.create_task(closed_loop(front, model, stop, clients=8, least=least // 2))
        streamed = asyncio.create_task(closed_loop(front, model, stop, clients=8, least=least // 2, stream=True))
        for gateway in two_gateways:
            await asyncio.to_thread(gateway.stop)
            await asyncio.to_thread(gateway.start)
            # B023: it is called before the loop goes on.
            await asyncio.to_thread(wait_until, lambda: served(gateway) > 0, seconds=20, what="it is used again")  # noqa: B023
        stop.set()
        return await whole, await streamed

    with balancer(two_gateways) as front:
        whole, streamed = asyncio.run(restart_each(front))
    failed = broken(whole) + broken(streamed, b"[DONE]")
    drill.record(
        f"two hosts restarted one after the other behind {balancer.__name__}",
        f"{failed} of {len(whole) + len(streamed)} failed, {len(streamed)} of them streams",
        goal="0 failed", ok=failed == 0,
    )  # fmt: skip


def served(product: Product) -> int:
    """Requests that it has answered since it started."""
    counts = re.findall(r"^llmlb_requests_total\S* (\S+)", product.get("/metrics").text, re.M)
    return round(sum(map(float, counts)))


@needs_servers
def test_two_gateways_never_give_a_node_more_than_it_takes_and_are_fair(
    two_gateways: list[Product], node_process: MakeNodeProcess, drill: Drill
) -> None:
    many = 1000 if drill.full else 120
    node = node_process(("shared",), latency=0.1)
    (id,) = routed(two_gateways[0], node)
    limit = 4
    two_gateways[0].request("PUT", f"/api/nodes/{id}", json={"max_concurrency": limit}).raise_for_status()
    minted = two_gateways[0].post("/api/api-keys", json={"name": "other", "permissions": ["openai.inference"]}).json()
    order: list[str] = []

    async def ask(gateway: Product, key: str, name: str) -> Answer | None:
        clients = Clients(gateway)
        asked = request(gateway, model="shared").replace(gateway.key.encode(), key.encode())
        answer = await clients.ask(asked)
        order.append(name)
        clients.close()
        return answer

    async def load() -> list[Answer | None]:
        first, second = two_gateways
        flood = [asyncio.create_task(ask(first, first.key, "flood")) for _ in range(many)]
        await asyncio.sleep(0.5)
        order.clear()
        guest = [asyncio.create_task(ask(second, minted["key"], "guest")) for _ in range(10)]
        return list(await asyncio.gather(*flood, *guest))

    time.sleep(2)  # the limit is known to all
    answers = asyncio.run(load())
    most, failed = node.state()["max_in_flight"], broken(answers)
    drill.record(
        f"a node that takes {limit}, shared by two gateways",
        f"{most} at once, {failed} of {many + 10} requests through three processes failed",
        goal=f"≤ {limit}, 0 failed",
        ok=most <= limit and failed == 0,
    )
    last = len(order) - order[::-1].index("guest")
    figure = f"its 10 were among the next {last}"
    drill.record(
        f"one key waits {many} times at one gateway, another key comes to the other", figure,
        goal="≤ 40", ok=last <= 40,
    )  # fmt: skip


@needs_servers
def test_a_gateway_that_is_killed_holds_no_slot_for_long(
    two_gateways: list[Product], node_process: MakeNodeProcess, drill: Drill
) -> None:
    survivor, victim = two_gateways
    node = node_process(("held",), chunks=2000, chunk_interval=0.05)
    (id,) = routed(survivor, node)
    survivor.request("PUT", f"/api/nodes/{id}", json={"max_concurrency": 2}).raise_for_status()
    time.sleep(2)  # the limit is known to all
    done = 20

    async def hold_and_kill() -> float:
        finished = Clients(victim)
        routed(survivor, node_process(("quick",)))
        await asyncio.to_thread(wait_until, lambda: "quick" in victim.get("/v1/models").text, seconds=5, what="known")
        for _ in range(done):
            assert broken([await finished.ask(request(victim, model="quick"))]) == 0
        held = [Client(victim), Client(victim)]
        for client in held:
            await client.send(request(victim, model="held", stream=True))
            await client.read_some()
        await asyncio.sleep(1.1)  # what is kept: what had completed more than a second before
        waiting = Client(survivor)
        await waiting.send(request(survivor, model="held", stream=True))
        began = time.monotonic()
        await asyncio.to_thread(victim.kill)
        try:
            async with asyncio.timeout(2 * FREE_SECONDS):
                await waiting.read_some()
            free = time.monotonic() - began
        except TimeoutError:
            free = math.inf
        for client in (*held, waiting):
            client.abort()
        finished.close()
        return free

    free = asyncio.run(hold_and_kill())
    rows = survivor.get("/api/dashboard/request-responses", params={"model": "quick", "per_page": 100}).json()
    kept = len(rows.get("records", rows.get("items", [])))
    drill.record(
        "gateway kill -9 with every slot of a node", f"a waiting request got one after {free:.1f} s",
        goal=f"≤ {FREE_SECONDS:g} s", ok=free <= FREE_SECONDS,
    )  # fmt: skip
    drill.record("the same: rows of requests that had completed", f"{kept} of {done}", goal="all", ok=kept == done)
