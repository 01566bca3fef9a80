"""The contract of which node keeps which response: the same for one process (memory) and for several (Redis)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import redis

from routing.state.redis_link import RedisLink
from routing.state.redis_stored import RedisStored
from routing.state.stored import STORED_SECONDS, MemoryStored, Stored, StoredResponses
from tests.support.private_redis import PrivateRedis

needs_redis = pytest.mark.skipif(not PrivateRedis.is_there(), reason="redis-server is not installed")
Make = Callable[[int], StoredResponses]


def remember(stored: StoredResponses, response_id: str, owner: int = 1, node: int = 7) -> None:
    stored.remember(owner, response_id, node_id=node, model="m", asked_model="alias", provider="")


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateRedis]:
    with PrivateRedis() as server:
        yield server


@asynccontextmanager
async def shared(server: PrivateRedis, limit: int = 10) -> AsyncIterator[RedisStored]:
    link = RedisLink(server.url)
    stored = RedisStored(link, limit=limit)
    await link.start()
    yield stored
    await link.aclose()


@pytest.fixture(params=["memory", pytest.param("redis", marks=needs_redis)])
async def stored(request: pytest.FixtureRequest) -> AsyncIterator[StoredResponses]:
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            yield MemoryStored(limit=10)
        else:
            yield await stack.enter_async_context(shared(request.getfixturevalue("server")))


async def test_it_is_known_to_its_owner_until_it_is_forgotten(stored: StoredResponses) -> None:
    remember(stored, "resp_1")
    assert await stored.find(1, "resp_1") == Stored(7, "m", "alias")
    assert await stored.find(2, "resp_1") is None
    assert await stored.find(1, "resp_2") is None
    stored.forget(1, "resp_1")
    assert await stored.find(1, "resp_1") is None


async def test_it_may_be_said_in_a_thread(stored: StoredResponses) -> None:
    await asyncio.to_thread(remember, stored, "resp_thread")
    assert await stored.find(1, "resp_thread") is not None


@pytest.mark.parametrize("bad", ["", "a/b", "a?b", "a b", "a\r\nb", "é", "x" * 201])
async def test_an_id_that_could_be_more_than_an_id_is_not_kept(stored: StoredResponses, bad: str) -> None:
    remember(stored, bad)
    assert await stored.find(1, bad) is None


async def test_memory_is_bounded_in_number_and_time() -> None:
    now = [0.0]
    stored = MemoryStored(limit=3, clock=lambda: now[0])
    for number in range(5):
        remember(stored, f"resp_{number}")
    assert len(stored) == 3
    assert await stored.find(1, "resp_1") is None
    assert await stored.find(1, "resp_4") is not None
    now[0] = STORED_SECONDS + 1
    assert await stored.find(1, "resp_4") is None
    remember(stored, "resp_new")
    assert len(stored) == 1


@needs_redis
class TestSeveralGateways:
    async def test_what_one_made_another_finds_and_may_forget(self, server: PrivateRedis) -> None:
        async with shared(server) as one, shared(server) as two:
            remember(one, "resp_shared", node=3)
            await one._link.call("PING")
            found = await two.find(1, "resp_shared")
            assert found == Stored(3, "m", "alias")
            assert await two.find(2, "resp_shared") is None
            two.forget(1, "resp_shared")
            assert await two.find(1, "resp_shared") is None

    async def test_redis_is_bounded_in_number_and_time(self, server: PrivateRedis) -> None:
        client = redis.Redis.from_url(server.url)
        client.flushdb()
        async with shared(server, limit=3) as one, shared(server) as two:
            for number in range(5):
                remember(one, f"resp_{number}")
            await one._link.call("PING")
            assert await two.find(1, "resp_4") is not None
            kept = list(client.scan_iter("llmlb:response:*"))
            assert len(kept) == 3
            assert all(0 < client.ttl(key) <= STORED_SECONDS for key in [*kept, b"llmlb:responses"])
        client.close()

    async def test_without_redis_each_knows_its_own(self) -> None:
        with PrivateRedis() as server:
            async with shared(server) as one, shared(server) as two:
                server.kill()
                while one._link.up or two._link.up:
                    await asyncio.sleep(0.01)
                remember(one, "resp_alone")
                assert await one.find(1, "resp_alone") is not None
                assert await two.find(1, "resp_alone") is None
