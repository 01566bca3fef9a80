"""What all processes of all hosts must agree on: what was changed at one of them, and what a key may use of all."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final, NamedTuple

import httpx
import pytest
import redis

from nodes.fake_node import Behaviour, FakeNode, running_fake_node
from routing.core.limits import LONGEST, WINDOW
from tests.drills.clients import Answer, Client, percentile, request
from tests.drills.conftest import ADMINISTRATOR, Drill, MakeNodeProcess, needs_servers
from tests.drills.connections import Connection, one_to_each_process
from tests.drills.fleet import routed
from tests.support.private_redis import PrivateRedis
from tests.support.product import Product

EVERYWHERE_SECONDS: Final = 2.0  # what is promised
GIVEN_UP_SECONDS: Final = 20.0
PAUSE: Final = 0.01
WITHIN_PERCENT: Final = 1.0
CLIENTS: Final = 12  # at each gateway: one has two processes, and the kernel shares them out
REFUSALS: Final = 10  # so many in a row, with a pause after each: what ran has ended, and there is no more
# Channels that stay when the news is cut: that of granted slots.
OTHER_CHANNELS: Final = "&llmlb:slots:*"


class Change(NamedTuple):
    """What is changed, and what then holds at each connection."""

    what: str
    make: Callable[[], object]
    holds: Callable[[Connection], bool]


class Operator:
    """Whoever changes things, at one gateway: by API where there is one, else on the dashboard's pages."""

    def __init__(self, gateway: Product) -> None:
        self.gateway = gateway
        self._pages = httpx.Client(base_url=gateway.url, trust_env=False, timeout=30)
        self.submit("/login", ADMINISTRATOR)
        listed = self._pages.get("/admin/models_catalog/cloudprovider/").text
        found = re.search(r'href="(\S+/cloudprovider/\d+/change/)[^"]*">\s*OpenAI', listed)
        assert found is not None, listed
        self._provider = found[1]

    def close(self) -> None:
        self._pages.close()

    def call(self, method: str, path: str, **values: Any) -> Any:
        answer = self.gateway.request(method, path, **({"json": values} if values else {}))
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def submit(self, path: str, values: dict[str, str]) -> None:
        """Fill in a page's form."""
        self._pages.get(path)
        answer = self._pages.post(path, data={**values, "csrfmiddlewaretoken": self._pages.cookies["llmlb_csrf"]})
        assert answer.status_code == 302, answer.text

    def set_provider(self, url: str) -> None:
        key = {"api_key": "sk-drill", "base_url": url} if url else {"remove_api_key": "on"}
        self.submit(self._provider, {"enabled": "on", **key})


def serves(connection: Connection, model: str, *, key: str = "") -> bool:
    return connection.chat(model, key=key).status == 200


def changes(operator: Operator, node: FakeNode, other: FakeNode, first: Connection) -> Iterator[Change]:
    """One after the other: each begins where the ones before have left the installation."""
    (model,), (failing,) = node.models, other.models
    ids: list[int] = []

    def add(each: FakeNode) -> None:
        ids.append(operator.call("POST", "/api/nodes", name=each.models[0], base_url=each.url)["id"])

    yield Change("a node is added", lambda: add(node), lambda at: serves(at, model))
    yield Change("a node is added", lambda: add(other), lambda at: serves(at, failing))
    alias = {"alias": f"alias-of-{model}", "model_id": model}
    yield Change(
        "an alias is made", lambda: operator.submit("/models/aliases/add", alias), lambda at: serves(at, alias["alias"])
    )
    cloud = f"openai:{model}"
    yield Change("a provider's key is set", lambda: operator.set_provider(node.url), lambda at: serves(at, cloud))
    yield Change("a provider's key is removed", lambda: operator.set_provider(""), lambda at: not serves(at, cloud))

    minted: dict[str, Any] = {}
    asked = {"name": model, "permissions": ["openai.inference"]}
    yield Change(
        "a key is minted",
        lambda: minted.update(operator.call("POST", "/api/api-keys", **asked)),
        lambda at: serves(at, model, key=minted["key"]),
    )
    key, path = minted["key"], f"/api/api-keys/{minted['id']}"
    yield Change(
        "a key's limit is changed",
        lambda: operator.call("PATCH", path, limits=[{"requests_per_minute": 50_000}]),
        lambda at: at.chat(model, key=key).headers.get("x-ratelimit-limit-requests") == "50000",
    )
    yield Change(
        "a key is revoked", lambda: operator.call("DELETE", path), lambda at: at.chat(model, key=key).status == 401
    )

    path = f"/api/nodes/{ids[0]}"
    yield Change("a node drains", lambda: operator.call("POST", f"{path}/drain"), lambda at: not serves(at, model))
    yield Change("a node resumes", lambda: operator.call("POST", f"{path}/resume"), lambda at: serves(at, model))
    yield Change(
        "a node is disabled", lambda: operator.call("PUT", path, enabled=False), lambda at: not serves(at, model)
    )

    def fail() -> None:
        other.behaviour = Behaviour(mode="garbage", times=1)  # whoever asks after that would be answered
        assert not serves(first, failing)

    yield Change("a model that failed is excluded", fail, lambda at: not serves(at, failing))


def seconds_until_everywhere(change: Change, connections: list[Connection]) -> float:
    """From when the change is answered until the last process acts on it."""
    change.make()
    began = time.monotonic()
    left = list(connections)
    while left := [each for each in left if not change.holds(each)]:
        assert time.monotonic() - began < GIVEN_UP_SECONDS, f"{change.what}: not at {len(left)} of {len(connections)}"
        time.sleep(PAUSE)
    return time.monotonic() - began


@contextmanager
def without_news(gateway: Product) -> Iterator[None]:
    """Redis serves slots, limits and all else, but lets nobody tell or hear what has changed."""
    with redis.Redis.from_url(gateway.environment()["LLMLB_REDIS_URL"]) as client:
        client.execute_command("ACL", "SETUSER", "default", "resetchannels", OTHER_CHANNELS)
        try:
            yield
        finally:
            client.execute_command("ACL", "SETUSER", "default", "allchannels")


@needs_servers
@pytest.mark.skipif(not PrivateRedis.is_there(), reason="redis-server is not installed")
def test_a_change_at_one_host_holds_in_every_process(two_gateways: list[Product], drill: Drill) -> None:
    took: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    with ExitStack() as stack:
        operator = Operator(two_gateways[0])
        stack.callback(operator.close)

        def measure(model: str, at: int) -> None:
            nodes = [stack.enter_context(running_fake_node((f"{model}-{name}",))) for name in ("first", "second")]
            with one_to_each_process(*two_gateways) as connections:
                for change in changes(operator, nodes[0], nodes[1], connections[-1]):
                    took[change.what][at].append(seconds_until_everywhere(change, connections))

        for repeat in range(5 if drill.full else 2):
            measure(f"told-{repeat}", 0)
        with without_news(two_gateways[0]):
            for repeat in range(5 if drill.full else 1):
                measure(f"untold-{repeat}", 1)
    for what, (told, untold) in took.items():
        figure = f"p50 {of(told, 0.5)}, max {of(told, 1)} ms; without news {of(untold, 0.5)}, {of(untold, 1)} ms"
        drill.record(
            f"{what} at one of 2 hosts: until all 3 processes act on it", figure,
            goal=f"≤ {EVERYWHERE_SECONDS:g} s", ok=max(told + untold) <= EVERYWHERE_SECONDS,
        )  # fmt: skip


def of(seconds: list[float], share: float) -> str:
    return f"{percentile(seconds, share) * 1000:.0f}"


# --- what a key may use a minute -------------------------------------------------------------------------------------


async def hammer(gateways: list[Product], asked: bytes) -> list[Answer]:
    """What is answered to many clients at each gateway that ask as fast as they can, until nobody is admitted."""
    admitted: list[Answer] = []

    async def ask(gateway: Product) -> None:
        client, refused = Client(gateway), 0
        while refused < REFUSALS:
            answer = await client.ask(asked)
            if answer.status == 200:
                admitted.append(answer)
                refused = 0
            else:
                assert answer.status == 429, answer.body
                refused += 1
                await asyncio.sleep(0.01)
        client.abort()

    await asyncio.gather(*(ask(gateway) for gateway in gateways for _ in range(CLIENTS)))
    return admitted


@needs_servers
@pytest.mark.parametrize("counted", ["requests", "tokens"])
def test_a_minutes_limit_holds_over_all_processes(
    counted: str, two_gateways: list[Product], node_process: MakeNodeProcess, drill: Drill
) -> None:
    allowed = (3000 if drill.full else 300) * (100 if counted == "tokens" else 1)
    routed(two_gateways[0], node_process((f"many-{counted}",), chunks=80))
    minted = {"name": counted, "permissions": ["openai.inference"], "limits": [{f"{counted}_per_minute": allowed}]}
    key = two_gateways[0].post("/api/api-keys", json=minted).json()["key"]
    asked = request(two_gateways[0], model=f"many-{counted}", max_tokens=80)
    asked = asked.replace(two_gateways[0].key.encode(), key.encode())
    for minute in ("", ", the minute after") if drill.full else ("",):
        time.sleep(LONGEST / 1000 if minute else 0)
        began = time.monotonic()
        admitted = asyncio.run(hammer(two_gateways, asked))
        assert time.monotonic() - began < WINDOW / 1000, "it was all within a minute"
        used = len(admitted)
        if counted == "tokens":
            used = sum(json.loads(answer.body)["usage"]["total_tokens"] for answer in admitted)
        off = (used - allowed) / allowed * 100
        drill.record(
            f"{allowed} {counted} a minute, hammered through 3 processes of 2 hosts{minute}",
            f"{used} admitted, {off:+.2f} %", goal=f"within {WITHIN_PERCENT:g} %", ok=abs(off) <= WITHIN_PERCENT,
        )  # fmt: skip
