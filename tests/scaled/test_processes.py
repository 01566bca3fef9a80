"""`serve --processes N`: one port, several gateways, one parent that starts, renews and drains them."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from nodes.fake_node import Behaviour, running_fake_node
from tests.blackbox.conftest import add_and_route, chat, models
from tests.scaled.conftest import MakeProduct, database, redis_server, shared
from tests.support.product import Product, wait_until


def children(product: Product) -> list[int]:
    """The process ids of the gateways that the parent runs."""
    pid = product.process.pid
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def figure(product: Product, name: str) -> float:
    """A metric's value, or the sum over its labels, as one of the processes tells it."""
    found = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", product.get("/metrics").text, re.M)
    return sum(map(float, found))


def settled(product: Product) -> float:
    """How many requests were counted; what is counted in a process is told twice a second."""
    time.sleep(1)
    return figure(product, "llmlb_requests_total")


def ask(product: Product, times: int = 1) -> list[int]:
    """Status codes of so many chats, each on a connection of its own."""
    return [httpx.post(**chat(product), trust_env=False).status_code for _ in range(times)]


class Asking(threading.Thread):
    """A client that asks all the time, each time on a new connection. `failures`: what was no 200, in its words.

    `asked`: the request; a chat if none is given.
    """

    def __init__(self, product: Product, asked: Callable[[], httpx.Response] | None = None) -> None:
        super().__init__()
        self.answered = 0
        self.failures: list[str] = []
        self._asked = asked or (lambda: httpx.post(**chat(product), trust_env=False))
        self._enough = threading.Event()

    def run(self) -> None:
        while not self._enough.is_set():
            try:
                answer = self._asked()
            except httpx.HTTPError as error:
                self.failures.append(repr(error))
            else:
                self.answered += 1
                if answer.status_code != 200:
                    self.failures.append(answer.text)

    def __enter__(self) -> Asking:
        self.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._enough.set()
        self.join()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """One installation for all of these: starting two gateways takes as long as what is tested."""
    with ExitStack() as stack:
        urls = stack.enter_context(database()), stack.enter_context(redis_server())
        product = Product(tmp_path_factory.mktemp("processes"), environment={**shared(*urls), "LLMLB_PROCESSES": "2"})
        stack.callback(product.end)
        product.start()
        quick = stack.enter_context(running_fake_node(("model-a",), behaviour=Behaviour()))
        slow = stack.enter_context(running_fake_node(("slow",), behaviour=Behaviour(latency=2.0)))
        add_and_route(product, quick, slow)
        yield product


@pytest.fixture
def product(installed: Product) -> Product:
    """It runs, with a quick node and a slow one that both gateways know."""
    if not installed.is_running:
        installed.start()
    known = {"model-a", "slow"}
    wait_until(lambda: all(models(installed) >= known for _ in range(8)), seconds=5, what="both know the models")
    return installed


def test_the_kernel_shares_out_and_every_request_is_counted_once(product: Product) -> None:
    assert len(children(product)) == 2
    before = settled(product)
    assert ask(product, 40) == [200] * 40
    wait_until(
        lambda: all(figure(product, "llmlb_requests_total") == before + 40 for _ in range(4)),
        seconds=5,
        what="all are counted, once, whoever is asked",
    )
    served = [Path(f"/proc/{pid}/stat").read_text().split() for pid in children(product)]
    assert all(int(fields[13]) + int(fields[14]) > 0 for fields in served)
    assert settled(product) == before + 40


def test_what_is_renewed_under_load_fails_nobody_and_keeps_the_count(product: Product) -> None:
    before = children(product)
    counted = settled(product)
    with Asking(product) as one, Asking(product) as two, Asking(product, lambda: product.get("/readyz")) as balancer:
        time.sleep(0.5)
        product.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(set(children(product)) - set(before)) == 2, seconds=60, what="both are new")
        wait_until(lambda: not set(children(product)) & set(before), seconds=60, what="both old ones have left")
    assert one.failures + two.failures == []
    assert balancer.failures == [], "a load balancer takes no host out for that"
    total = counted + one.answered + two.answered
    wait_until(lambda: figure(product, "llmlb_requests_total") == total, seconds=3, what=f"{total} are counted")


def test_one_that_is_killed_is_replaced_while_the_other_serves(product: Product) -> None:
    ask(product, 10)
    counted = settled(product)
    victim, other = children(product)
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: children(product) == [other] or len(children(product)) == 2, seconds=5, what="it is noticed")
    time.sleep(0.3)
    assert ask(product, 20) == [200] * 20
    wait_until(lambda: len(set(children(product)) - {victim, other}) == 1, seconds=30, what="another is started")
    wait_until(
        lambda: all(product.get("/readyz").json()["status"] == "ready" for _ in range(6)),
        seconds=60,
        what="all is well",
    )
    assert settled(product) == counted + 20, "what the dead one had counted stays"


def test_sigterm_drains_all_and_the_exit_code_is_0(product: Product) -> None:
    answers: list[int] = []
    asking = [
        threading.Thread(
            target=lambda: answers.append(httpx.post(**chat(product, model="slow"), trust_env=False).status_code)
        )
        for _ in range(6)
    ]
    for each in asking:
        each.start()
    time.sleep(0.7)
    assert product.stop() == 0
    for each in asking:
        each.join()
    assert answers == [200] * 6
    with pytest.raises(httpx.ConnectError):
        product.get("/livez")


def test_they_leave_when_their_parent_is_killed(product: Product) -> None:
    left = children(product)
    product.kill()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in left), seconds=20, what="they have left")


def test_a_start_that_cannot_be_says_why(gateway: MakeProduct) -> None:
    refused = gateway(processes=2, LLMLB_DATABASE_URL="").launch()
    assert refused.wait() != 0
    assert "llmlb.serve.E003" in refused.output
