"""The states that are tested: of one process, and of one that shares it through Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from routing.core.select import least_busy
from routing.state.base import State
from routing.state.memory import MemoryState
from tests.routing.state.support import Processes, needs_redis
from tests.support.private_redis import PrivateRedis


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateRedis]:
    with PrivateRedis() as server:
        yield server


@pytest.fixture
async def processes(server: PrivateRedis) -> AsyncIterator[Processes]:
    processes = Processes(server)
    yield processes
    await processes.end()


@pytest.fixture(params=["memory", pytest.param("redis", marks=needs_redis)])
async def state(request: pytest.FixtureRequest) -> AsyncIterator[State]:
    if request.param == "memory":
        yield MemoryState(strategy=least_busy, queue_max=10)
        return
    processes = Processes(request.getfixturevalue("server"))
    yield await processes.start()
    await processes.end()
