"""Gateways on several hosts, each with its own address: what is decided on one holds on all, soon."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from nodes.fake_node import Behaviour, FakeNode, running_fake_node
from tests.blackbox.conftest import chat, models
from tests.scaled.conftest import database, shared
from tests.support.hosts import Host, Network, forwarded
from tests.support.private_redis import PrivateRedis
from tests.support.product import Product, wait_until

EVERYWHERE_SECONDS = 2.0  # what is promised
pytestmark = [
    pytest.mark.skipif(bool(Network.why_not()), reason=Network.why_not() or "it can be done"),
    pytest.mark.skipif(not PrivateRedis.is_there(), reason="redis-server is not installed"),
]


@dataclass
class Installation:
    """Two hosts, the first with two gateway processes and the second with one; nodes on a third."""

    network: Network
    hosts: list[Host]
    gateways: list[Product]
    redis: PrivateRedis
    stack: ExitStack

    def add_node(self, model: str, limit: int = 0, **behaviour: Any) -> tuple[FakeNode, str]:
        """A node with this model alone, known to all gateways; and its id."""
        told = Behaviour(**behaviour)
        node = self.stack.enter_context(running_fake_node((model,), behaviour=told, host=self.network.address(1)))
        asked = {"name": model, "base_url": node.url, "max_concurrency": limit}
        answer = self.gateways[0].post("/api/nodes", json=asked)
        assert answer.status_code == 201, answer.text
        self.soon_everywhere(lambda gateway: model in models(gateway), "all know it")
        return node, str(answer.json()["id"])

    def everywhere(self, holds: Callable[[Product], bool]) -> bool:
        """It holds at every process: each is asked some times, since who answers is for the kernel to say."""
        return all(holds(gateway) for gateway in self.gateways for _ in range(5))

    def soon_everywhere(self, holds: Callable[[Product], bool], what: str) -> None:
        wait_until(lambda: self.everywhere(holds), seconds=EVERYWHERE_SECONDS, what=what)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with ExitStack() as stack:
        network = stack.enter_context(Network())
        hosts = [network.add_host(), network.add_host()]
        server = stack.enter_context(PrivateRedis(network.address(2)))
        local = urlsplit(stack.enter_context(database()))
        port = stack.enter_context(forwarded(network.address(1), (local.hostname or "localhost", local.port or 5432)))
        at = f"{local.username}{f':{local.password}' if local.password else ''}@{network.address(1)}:{port}"
        environment = {**shared(f"postgres://{at}{local.path}", server.url)}
        gateways = []
        for host, processes in zip(hosts, (2, 1), strict=True):
            disk = tmp_path_factory.mktemp(host.name)  # of its own, with a directory for locks of its own
            of_its_own = {**environment, "LLMLB_PROCESSES": str(processes), "TMPDIR": str(disk)}
            gateways.append(
                Product(disk / "data", environment=of_its_own, host=host.address, prefix=host.prefix, port=32768)
            )
        for gateway in gateways:
            stack.callback(gateway.end)
            gateway.key = gateways[0].key
            gateway.launch()
        for gateway in gateways:
            wait_until(lambda: gateway.is_ready() or not gateway.is_running, seconds=90, what="it is ready")  # noqa: B023
            assert gateway.is_running, gateway.output
        yield Installation(network, hosts, gateways, server, stack)


def test_a_model_that_failed_is_out_everywhere(installed: Installation) -> None:
    node, _ = installed.add_node("failing")
    node.behaviour.mode = "garbage"
    first, *_ = installed.gateways
    assert httpx.post(**chat(first, model="failing"), trust_env=False).status_code >= 500
    installed.soon_everywhere(lambda gateway: "failing" not in models(gateway), "the model is excluded")


def test_a_node_that_drains_gets_nothing_more_from_anyone(installed: Installation) -> None:
    _, id = installed.add_node("draining")
    assert installed.gateways[1].post(f"/api/nodes/{id}/drain").status_code in (200, 202)
    installed.soon_everywhere(
        lambda gateway: httpx.post(**chat(gateway, model="draining"), trust_env=False).status_code == 503,
        "the node drains",
    )


def test_a_key_that_is_revoked_is_refused_everywhere(installed: Installation) -> None:
    first, second = installed.gateways
    minted = first.post("/api/api-keys", json={"name": "short-lived", "permissions": ["openai.models.read"]}).json()
    headers = {"Authorization": f"Bearer {minted['key']}"}

    def status(gateway: Product) -> int:
        return gateway.get("/v1/models", headers=headers).status_code

    installed.soon_everywhere(lambda gateway: status(gateway) == 200, "the key is known")
    assert second.request("DELETE", f"/api/api-keys/{minted['id']}").status_code in (200, 204)
    installed.soon_everywhere(lambda gateway: status(gateway) == 401, "the key is revoked")


def test_a_change_is_seen_even_where_the_news_is_lost(installed: Installation) -> None:
    first, second = installed.gateways
    with installed.hosts[1].cut_off_from(installed.network.address(2)):
        wait_until(lambda: second.get("/readyz").json()["status"] == "degraded", seconds=10, what="it is noticed")
        minted = first.post("/api/api-keys", json={"name": "news", "permissions": ["openai.models.read"]}).json()
        headers = {"Authorization": f"Bearer {minted['key']}"}
        installed.soon_everywhere(
            lambda gateway: gateway.get("/v1/models", headers=headers).status_code == 200, "the key is known"
        )
    wait_until(lambda: second.get("/readyz").json()["status"] == "ready", seconds=15, what="Redis is back")


def test_a_host_cut_off_from_redis_serves_without_waiting(installed: Installation) -> None:
    installed.add_node("limited", limit=4)
    second = installed.gateways[1]
    with installed.hosts[1].cut_off_from(installed.network.address(2)):
        took = []
        for _ in range(10):
            began = time.monotonic()
            assert httpx.post(**chat(second, model="limited"), trust_env=False).status_code == 200
            took.append(time.monotonic() - began)
        assert max(took) < 1.5
        assert sorted(took)[5] < 0.25
    wait_until(lambda: second.get("/readyz").json()["status"] == "ready", seconds=15, what="Redis is back")


async def test_all_hosts_together_never_give_a_node_more_than_it_takes(installed: Installation) -> None:
    node, _ = installed.add_node("narrow", limit=3, latency=0.02)
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:

        async def ask(number: int) -> int:
            return (await client.post(**chat(installed.gateways[number % 2], model="narrow"))).status_code

        answers = await asyncio.gather(*(ask(number) for number in range(90)))
    assert set(answers) == {200}
    assert node.max_in_flight == 3
