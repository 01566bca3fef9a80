"""The database, Redis or the disk is gone for a while: inference goes on, and the history loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from psycopg import sql

from nodes import overdue
from tests.blackbox.conftest import MakeProduct, models
from tests.drills.clients import Answer, Clients, percentile, request, upload
from tests.drills.conftest import Drill, MakeNodeProcess
from tests.drills.fleet import seconds_until
from tests.drills.servers import PostgreSQL, Redis, Server
from tests.support.node_process import NodeProcess
from tests.support.product import Product, wait_until

RATE: Final = 50.0  # requests a second
BEFORE_SECONDS: Final = 1.0
AFTER_SECONDS: Final = 1.0
REPLAY_SECONDS: Final = 30.0
SLOWEST_MS: Final = 1000.0  # nobody waits for what is down
UPLOAD_RATE: Final = 2.0
UPLOAD_BYTES: Final = 5_000_000  # more than the gateway keeps in memory where there is a disk
ROWS: Final = "SELECT count(DISTINCT request_id) FROM history_requestrecord"
COUNT: Final = "SELECT count(*) FROM history_requestrecord WHERE kind = 'chat'"
DIFFERENT: Final = "SELECT count(DISTINCT request_id) FROM history_requestrecord WHERE kind = 'chat'"
TOTAL: Final = "SELECT sum(requests) FROM history_tokentotal"


@dataclass(slots=True)
class Load:
    """The same request again and again, so many times a second, whatever becomes of it."""

    product: Product
    asked: bytes
    rate: float
    answers: list[Answer | None] = field(default_factory=list)
    sent: int = 0

    async def run(self, over: asyncio.Event) -> None:
        clients = Clients(self.product)
        pending: set[asyncio.Task[Answer | None]] = set()
        began = time.monotonic()
        while not over.is_set():
            pending.add(asyncio.create_task(clients.ask(self.asked)))
            self.sent += 1
            await asyncio.sleep(max(0.0, began + self.sent / self.rate - time.monotonic()))
        self.answers = list(await asyncio.gather(*pending))
        clients.close()

    @property
    def lost(self) -> int:
        return sum(1 for answer in self.answers if answer is None or answer.status != 200)

    @property
    def p95_ms(self) -> float:
        return percentile([answer.seconds * 1000 for answer in self.answers if answer], 0.95)


@asynccontextmanager
async def load(product: Product, asked: bytes = b"", *, rate: float = RATE) -> AsyncIterator[Load]:
    """Somebody asks all the time, a chat or what is given; afterwards all the answers are in."""
    running, over = Load(product, asked or request(product), rate), asyncio.Event()
    task = asyncio.create_task(running.run(over))
    try:
        await asyncio.sleep(BEFORE_SECONDS)
        yield running
        await asyncio.sleep(AFTER_SECONDS)
    finally:
        over.set()
        await task


async def status(product: Product) -> dict[str, Any]:
    """What /readyz says, but that nobody checks the nodes, which is true: no worker runs beside these gateways."""
    answer = await asyncio.to_thread(product.get, "/readyz")
    failing = [part for part in answer.json()["failing"] if part != overdue.PART]
    return {"status": "degraded" if failing else "ready", "failing": failing}


async def eventually(product: Product, wanted: str, *, seconds: float) -> dict[str, Any]:
    """What /readyz says once its status is `wanted`, or after so many seconds."""
    deadline = time.monotonic() + seconds
    while (found := await status(product))["status"] != wanted and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
    return found


def told(during: dict[str, Any], after: dict[str, Any]) -> str:
    """What /readyz said."""
    return f"/readyz: {', '.join(during['failing']) or during['status']}, then {after['status']}"


def told_rightly(during: dict[str, Any], after: dict[str, Any]) -> bool:
    return (during["status"], after["status"]) == ("degraded", "ready")


def excluded(product: Product) -> set[str]:
    """The nodes on which a model is excluded, as the database has it."""
    nodes = product.get("/api/nodes").json()
    return {node["name"] for node in nodes["nodes"] if node["excluded_models"]}


async def complete(rows: Callable[[], int], wanted: int) -> None:
    """The history has so many rows, or has had its time."""
    await asyncio.to_thread(seconds_until, lambda: rows() >= wanted, within=REPLAY_SECONDS)


@pytest.fixture
def postgresql() -> Iterator[PostgreSQL]:
    with (server := PostgreSQL()):
        yield server


@pytest.fixture
def redis_server() -> Iterator[Redis]:
    with (server := Redis()):
        yield server


def start_scaled(product: MakeProduct, postgresql: PostgreSQL, redis_server: Redis, *nodes: NodeProcess) -> Product:
    given = {"LLMLB_DATABASE_URL": postgresql.url, "LLMLB_REDIS_URL": redis_server.url}
    running = product(new=True, environment=given).start()
    for number, node in enumerate(nodes, start=1):
        running.add_node(f"node-{number}", node.url)
    wait_until(lambda: "model-a" in models(running), seconds=10, what="its model is offered")
    return running


@pytest.mark.parametrize("gone", ["database", "redis", "both"])
async def test_a_server_that_is_down_stops_no_request(
    gone: str,
    drill: Drill,
    product: MakeProduct,
    node_process: MakeNodeProcess,
    postgresql: PostgreSQL,
    redis_server: Redis,
) -> None:
    seconds = 60.0 if drill.full else 3.0
    dying = node_process()
    running = start_scaled(product, postgresql, redis_server, node_process(), dying)
    servers: dict[str, list[Server]] = {"database": [postgresql], "redis": [redis_server]}
    victims = servers.get(gone, [postgresql, redis_server])
    async with load(running) as asked:
        for victim in victims:
            victim.kill()
        said = await eventually(running, "degraded", seconds=10)
        dying.kill()  # what is known of nodes changes meanwhile, too
        await asyncio.sleep(seconds)
        refused = await asyncio.to_thread(running.get, "/v1/models", headers={"Authorization": "Bearer sk_" + "0" * 60})
        for victim in victims:
            victim.start()
        after = await eventually(running, "ready", seconds=30)
    await complete(lambda: postgresql.count(COUNT), asked.sent)
    rows, different, total = (postgresql.count(query) for query in (COUNT, DIFFERENT, TOTAL))
    drill.record(
        f"{gone} down for {seconds:g} s at {RATE:g} rps",
        f"{asked.lost} of {asked.sent} lost, p95 {asked.p95_ms:.0f} ms, {rows} rows ({different} different, "
        f"{total} in the totals), {told(said, after)}",
        goal=f"0 lost, p95 ≤ {SLOWEST_MS:g} ms, {asked.sent} rows, degraded and then ready",
        ok=asked.lost == 0
        and asked.p95_ms <= SLOWEST_MS
        and rows == different == total == asked.sent
        and told_rightly(said, after),
    )
    assert refused.status_code == 401


async def test_a_database_that_is_locked_for_long_stops_no_request(
    drill: Drill, product: MakeProduct, node_process: MakeNodeProcess
) -> None:
    seconds = 60.0 if drill.full else 3.0
    running = product().start()
    running.add_node("node-1", node_process().url)
    wait_until(lambda: "model-a" in models(running), seconds=10, what="its model is offered")
    with contextlib.closing(opened(running)) as other:
        async with load(running) as asked:
            other.execute("BEGIN IMMEDIATE")
            await asyncio.sleep(seconds)
            other.execute("ROLLBACK")
        await complete(lambda: _count(other, COUNT), asked.sent)
        rows, total = _count(other, DIFFERENT), _count(other, TOTAL)
    drill.record(
        f"SQLite locked for {seconds:g} s at {RATE:g} rps",
        f"{asked.lost} of {asked.sent} lost, p95 {asked.p95_ms:.0f} ms, {rows} rows, {total} in the totals",
        goal=f"0 lost, p95 ≤ {SLOWEST_MS:g} ms, {asked.sent} rows",
        ok=asked.lost == 0 and asked.p95_ms <= SLOWEST_MS and rows == total == asked.sent,
    )


async def test_a_newer_version_that_migrates_stops_no_request_of_the_old_one(
    drill: Drill, product: MakeProduct, node_process: MakeNodeProcess, postgresql: PostgreSQL, redis_server: Redis
) -> None:
    seconds = 60.0 if drill.full else 3.0
    old = start_scaled(product, postgresql, redis_server, node_process())
    async with load(old) as asked:
        migrating = asyncio.create_task(asyncio.to_thread(migrate_as_newer, postgresql, seconds))
        await asyncio.sleep(seconds / 2)
        refused = await asyncio.to_thread(old.get, "/v1/models", headers={"Authorization": "Bearer sk_" + "0" * 60})
        await migrating
    assert refused.status_code == 401
    await complete(lambda: postgresql.count(COUNT), asked.sent)
    rows, total = postgresql.count(DIFFERENT), postgresql.count(TOTAL)
    drill.record(
        f"a newer version locks every table for {seconds:g} s, and the old one serves at {RATE:g} rps",
        f"{asked.lost} of {asked.sent} lost, p95 {asked.p95_ms:.0f} ms, {rows} rows, {total} in the totals",
        goal=f"0 lost, p95 ≤ {SLOWEST_MS:g} ms, {asked.sent} rows",
        ok=asked.lost == 0 and asked.p95_ms <= SLOWEST_MS and rows == total == asked.sent,
    )
    old.stop()
    assert await asyncio.to_thread(old.launch().wait) == 1
    assert "the database was written by a newer llmlb (it has history.9999_newer)" in old.output


def migrate_as_newer(server: PostgreSQL, seconds: float) -> None:
    """What a version that does not exist yet would do: one transaction that locks all tables for so long."""
    with psycopg.connect(server.url) as connection:
        names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        connection.execute(
            sql.SQL("LOCK TABLE {}").format(sql.SQL(", ").join(sql.Identifier(name) for (name,) in names))
        )
        connection.execute("SELECT pg_sleep(%s)", [seconds])
        connection.execute("ALTER TABLE history_requestrecord ADD COLUMN newer integer NOT NULL DEFAULT 0")
        connection.execute("INSERT INTO django_migrations (app, name, applied) VALUES ('history', '9999_newer', now())")


async def test_a_disk_that_is_full_stops_no_request(
    drill: Drill, product: MakeProduct, node_process: MakeNodeProcess, small_disk: Path, migrated: Path
) -> None:
    seconds = 30.0 if drill.full else 3.0
    data_dir = small_disk / "data"
    shutil.copytree(migrated, data_dir)
    running = product(data_dir=data_dir).start()
    running.add_node("node-1", node_process().url)
    wait_until(lambda: "model-a" in models(running), seconds=10, what="its model is offered")
    sound = upload(running, size=UPLOAD_BYTES)
    async with load(running, sound, rate=UPLOAD_RATE) as uploaded, load(running) as asked:
        async with kept_full(small_disk):
            said = await eventually(running, "degraded", seconds=10)
            await asyncio.sleep(seconds)
        after = await eventually(running, "ready", seconds=30)
    sent = asked.sent + uploaded.sent
    with contextlib.closing(opened(running)) as database:
        await complete(lambda: _count(database, ROWS), sent)
        rows, total = _count(database, ROWS), _count(database, TOTAL)
        sound = database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    drill.record(
        f"disk full for {seconds:g} s at {RATE:g} rps and {UPLOAD_RATE:g} uploads a second",
        f"{asked.lost} of {asked.sent} lost, p95 {asked.p95_ms:.0f} ms; {uploaded.lost} of {uploaded.sent} uploads of "
        f"{UPLOAD_BYTES / 1e6:.0f} MB lost, p95 {uploaded.p95_ms:.0f} ms; {rows} rows, {total} in the totals, "
        f"database {'sound' if sound else 'BROKEN'}, {told(said, after)}",
        goal=f"0 lost, p95 ≤ {SLOWEST_MS:g} ms, {sent} rows, degraded and then ready",
        ok=asked.lost == uploaded.lost == 0
        and max(asked.p95_ms, uploaded.p95_ms) <= SLOWEST_MS
        and rows == total == sent
        and sound
        and told_rightly(said, after),
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 MB of the test's own."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(directory)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("a file system can only be mounted by root")
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


@asynccontextmanager
async def kept_full(disk: Path) -> AsyncIterator[None]:
    """Somebody's data takes all the room, and soon also what others give back: uploads that were on the disk do."""
    data = disk / "somebody's data"

    async def go_on() -> None:
        while True:
            fill(data)
            await asyncio.sleep(0.1)

    filling = asyncio.create_task(go_on())
    try:
        yield
    finally:
        filling.cancel()
        data.unlink()


def fill(path: Path) -> None:
    """Write until there is no room for another byte."""
    for size in (65536, 1):
        with path.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * size)


def opened(product: Product) -> sqlite3.Connection:
    path = product.data_dir / "llmlb.sqlite3"
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False)


def _count(database: sqlite3.Connection, query: str) -> int:
    return int(database.execute(query).fetchone()[0] or 0)
