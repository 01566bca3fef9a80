"""A PostgreSQL database and a Redis database of the test's own, and the product on them in several processes.

`make test` sets LLMLB_TEST_DATABASE_URL and LLMLB_TEST_REDIS_URL; without them these tests are skipped.
"""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from psycopg import sql

from nodes.fake_node import Behaviour, FakeNode, running_fake_node
from tests.support.private_redis import PrivateRedis
from tests.support.product import ROOT, Product

MakeProduct = Callable[..., Product]
MakeNode = Callable[..., FakeNode]
REDIS_DATABASE = 9


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    wanted = [name for name in ("LLMLB_TEST_DATABASE_URL", "LLMLB_TEST_REDIS_URL") if name not in os.environ]
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.scaled)
            if wanted:
                item.add_marker(pytest.mark.skip(reason=f"{' and '.join(wanted)} not set"))


@contextmanager
def database() -> Iterator[str]:
    server = os.environ["LLMLB_TEST_DATABASE_URL"]
    name = f"llmlb_scaled_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield server.rpartition("/")[0] + f"/{name}"
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def redis_server() -> Iterator[str]:
    """A server of the test's own where that can be had: pub/sub, for one, knows no databases."""
    if PrivateRedis.is_there():
        with PrivateRedis() as server:
            yield server.url
        return
    url = f"{os.environ['LLMLB_TEST_REDIS_URL'].rstrip('/')}/{REDIS_DATABASE}"
    client = redis.Redis.from_url(url)
    forget_keys(client)
    yield url
    forget_keys(client)
    client.close()


def shared(database_url: str, redis_url: str) -> dict[str, str]:
    """What all processes of an installation have in common."""
    return {
        "LLMLB_DATABASE_URL": database_url,
        "LLMLB_REDIS_URL": redis_url,
        "LLMLB_SECRET_KEY": "the same secret key in every process of the installation",
    }


@pytest.fixture
def database_url() -> Iterator[str]:
    with database() as url:
        yield url


@pytest.fixture
def redis_url() -> Iterator[str]:
    with redis_server() as url:
        yield url


def forget_keys(client: Any) -> None:
    """Only ours: this may be somebody's server."""
    for key in client.scan_iter("llmlb*"):
        client.delete(key)


@pytest.fixture
def gateway(tmp_path: Path, database_url: str, redis_url: str) -> Iterator[MakeProduct]:
    """`gateway()`: one more gateway of the same installation, not started yet; `gateway(processes=2)`: of so many."""
    made: list[Product] = []

    def make(processes: int = 1, **environment: str) -> Product:
        of_its_own = {**shared(database_url, redis_url), "LLMLB_PROCESSES": str(processes), **environment}
        made.append(Product(tmp_path / f"host-{len(made)}", environment=of_its_own))
        made[-1].key = made[0].key
        return made[-1]

    yield make
    for each in made:
        each.end()


@contextmanager
def background(product: Product) -> Iterator[None]:
    """Celery's worker and beat as processes of their own, as docs/operations.md has them."""
    celery = [sys.executable, "-m", "celery", "-A", "llmlb_site.celery"]
    commands = ([*celery, "worker", "--pool", "threads", "--concurrency", "8"], [*celery, "beat", "--pidfile="])
    with ExitStack() as stack:
        for command in commands:
            process = subprocess.Popen(
                command, cwd=ROOT, env=product.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            stack.callback(process.wait, 30)
            stack.callback(process.terminate)
        yield


@pytest.fixture
def node() -> Iterator[MakeNode]:
    with ExitStack() as stack:

        def make(models: tuple[str, ...] = ("model-a",), **behaviour: Any) -> FakeNode:
            return stack.enter_context(running_fake_node(models, behaviour=Behaviour(**behaviour)))

        yield make
