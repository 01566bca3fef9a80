"""Requests end in every way at once: each that was answered has one row with that status, and nothing stays held.

Clients hang up at any moment, nodes fail, come and go, keys are limited, the link to Redis breaks, tasks are cancelled.
"""

from __future__ import annotations

import asyncio
import inspect
import random
from collections import Counter
from collections.abc import Iterator

import pytest

from llmlb_site.lib.upstream.client import PooledClient
from nodes.fake_node import Behaviour
from routing.core.table import RoutingTable
from routing.state.limits import MemoryLimiter
from routing.state.redis_limits import RedisLimiter
from tests.routing.conftest import Fleet, MakeFleet, eventually
from tests.support.private_redis import PrivateRedis

REQUESTS = 400
PATHS = {
    "/v1/chat/completions": b'{"model": "model-a", "messages": [{"role": "user", "content": "hello"}]%s}',
    "/v1/messages": b'{"model": "model-a", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]%s}',
    "/v1/audio/speech": b'{"model": "model-a", "input": "hello", "voice": "any"%s}',
    "/v1/embeddings": b'{"model": "model-a", "input": "hello"%s}',
}


@pytest.fixture(params=["memory", "redis"])
def redis_url(request: pytest.FixtureRequest) -> Iterator[str | None]:
    if request.param == "memory":
        yield None
    elif not PrivateRedis.is_there():
        pytest.skip("no redis-server on this machine")
    else:
        with PrivateRedis() as server:
            yield server.url


class Clients:
    """Whoever asks, and what status each was told: 0 for none."""

    def __init__(self, fleet: Fleet, chance: random.Random, keys: list[str]) -> None:
        host, port = fleet.url.removeprefix("http://").split(":")
        self._address = host, int(port)
        self._chance, self._keys = chance, keys
        self.told: dict[str, int] = {}

    async def ask(self, name: str) -> None:
        chance = self._chance
        path = chance.choice(list(PATHS))
        body = PATHS[path] % (b', "stream": true' if chance.random() < 0.5 and path != "/v1/embeddings" else b"")
        head = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {chance.choice(self._keys)}\r\n"
            f"X-Request-ID: {name}\r\nContent-Type: application/json\r\nanthropic-version: 2023-06-01\r\n"
            f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        reader, writer = await asyncio.open_connection(*self._address)
        self.told[name] = 0
        patience = chance.choice((0.0, 0.002, 0.01, 0.03, 0.06, 20.0, 20.0, 20.0))
        answer = b""
        try:
            async with asyncio.timeout(patience):
                writer.write(head.encode() + body)
                answer = await reader.readuntil(b"\r\n")
                self.told[name] = int(answer.split()[1])
                await reader.read()
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError):
            assert patience < 20 or answer
        finally:
            writer.transport.abort()


def requests_that_run() -> list[asyncio.Task[object]]:
    """A task that is cancelled before its first step never runs: the application has not heard of such a request."""
    return [task for task in asyncio.all_tasks() if _runs(task.get_coro())]


def _runs(coro: object) -> bool:
    """Whether it is a request, and under way."""
    if not inspect.iscoroutine(coro) or coro.__qualname__ != "Cycle.run":
        return False
    return inspect.getcoroutinestate(coro) == inspect.CORO_SUSPENDED


@pytest.mark.parametrize("seed", [1, 2])
async def test_every_end(make_fleet: MakeFleet, redis_url: str | None, seed: int) -> None:
    chance = random.Random(seed)
    fleet = await make_fleet(redis_url=redis_url, queue_max=20, queue_timeout=0.3)
    behaviours = [
        Behaviour(latency=0.01),
        Behaviour(chunks=10, chunk_interval=0.004),
        Behaviour(status=500),
        Behaviour(mode="cut_mid_stream"),
        Behaviour(mode="cut_in_body", reset=True),
        Behaviour(mode="cut_before_headers"),
        Behaviour(mode="half_close"),
        Behaviour(mode="busy_429"),
    ]
    for limit in (2, 3, 0):
        await fleet.add("model-a", limit=limit, behaviour=behaviours[1])
    engine = fleet.engine
    whole = engine.table
    holders = [node.id for node in whole.holders["model-a"]]
    limits = [{"requests_per_minute": 100_000, "concurrent_requests": 5, "tokens_per_day": 10_000_000}]
    clients = Clients(fleet, chance, [fleet.key, await fleet.mint("limited", limits=limits)])
    asking: set[asyncio.Task[None]] = set()
    for step in range(REQUESTS):
        asking.add(asyncio.create_task(clients.ask(f"r{seed}-{step}")))
        await asyncio.sleep(chance.choice((0, 0, 0.002, 0.005)))
        if step % 7 == 0:
            chance.choice(fleet.nodes).behaviour = chance.choice(behaviours)
        if step % 11 == 0:
            out = [(id, "model-a") for id in holders if chance.random() < 0.3]
            engine._install(chance.choice((whole, whole.without(out), RoutingTable.build([], []))))
        if step % 13 == 0 and (running := requests_that_run()):
            chance.choice(running).cancel()
        if step % 40 == 0 and engine.link is not None:
            engine.link.renew()
    engine._install(whole)
    async with asyncio.timeout(30):
        await asyncio.gather(*asking)
    await eventually(lambda: not requests_that_run())
    rows = Counter(entry.request_id for entry in fleet.recorder.entries)
    status = {entry.request_id: entry.status for entry in fleet.recorder.entries}
    assert set(rows.values()) == {1}
    assert set(rows) <= set(clients.told)
    answered = {name: told for name, told in clients.told.items() if told}
    assert {name: status.get(name) for name in answered} == answered
    outcomes = Counter(entry.outcome for entry in fleet.recorder.entries)
    assert {"success", "cancelled", "broken", "no_route"} <= set(outcomes), outcomes
    await holds_nothing(fleet)


async def holds_nothing(fleet: Fleet) -> None:
    engine = fleet.engine
    assert isinstance(engine.upstream, PooledClient)
    upstream = engine.upstream
    assert not engine.state.in_flight_here()
    assert not engine.state.waiting_here()
    assert not upstream._asking
    await eventually(lambda: all(not node.in_flight for node in fleet.nodes))
    own = engine.limits._own if isinstance(engine.limits, RedisLimiter) else engine.limits
    assert isinstance(own, MemoryLimiter)
    assert not any(running or reserved for _, running, reserved in own.held())
    link = engine.link
    if link is None:
        return
    await eventually(lambda: link.up)
    for pattern in ("llmlb:slots:totals", "llmlb:slots:lines", "llmlb:slots:waiting", "llmlb:limits:*:h"):
        left: list[bytes] = [b"?"]
        async with asyncio.timeout(5):
            while left := await link.call("KEYS", pattern):
                await asyncio.sleep(0.05)
        assert not left
