"""A real gateway on a real socket, in front of fake nodes on real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import uvicorn
import uvloop
from asgiref.sync import sync_to_async
from django.conf import settings

from access.audit import SYSTEM
from access.models import ApiKey, User
from access.permissions import Permission, Role
from access.services import create_user, mint_api_key
from history.entries import RequestEntry
from llmlb_site.serve.bounds import BoundedProtocol, DrainingState
from nodes.fake_node import FakeNode
from nodes.models import Node, NodeModel, NodeStatus
from routing.engine import Engine
from routing.gateway.consumer import Gateway


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Callable[[], Any]]:
    """The event loop that the product runs on."""
    return {"uvloop": uvloop.new_event_loop}


class ListRecorder:
    """Stands in for the history's recorder: the gateway's side of the seam is what is tested here."""

    def __init__(self) -> None:
        self.entries: list[RequestEntry] = []

    def start(self) -> None: ...

    def stop(self) -> bool:
        return True

    def put(self, entry: RequestEntry) -> None:
        self.entries.append(entry)

    def health(self) -> Any:
        return SimpleNamespace(backlog=0, rows_dropped=0, failing_since=None)


@dataclass
class Fleet:
    """A gateway, its nodes and a client of it."""

    url: str
    key: str
    engine: Engine
    client: httpx.AsyncClient
    recorder: ListRecorder
    owner: User
    nodes: list[FakeNode] = field(default_factory=list)

    async def add(self, *models: str, **values: Any) -> FakeNode:
        """Start a fake node and put it into the database as an online node that has these models."""
        limit = values.pop("limit", None)
        fields = values.pop("row", {})
        fake = FakeNode(models or ("model-a",), **values)
        await fake.start()
        self.nodes.append(fake)
        await sync_to_async(self._store)(fake, limit, fields)
        await self.engine.control.catch_up(timeout=5)
        return fake

    def _store(self, fake: FakeNode, limit: int | None, fields: dict[str, Any]) -> None:
        from llmlb_site.lib.events import publish

        node = Node.objects.create(
            name=fields.pop("name", f"node-{len(self.nodes)}"),
            base_url=fake.url,
            api_key=fake.api_key or "",
            status=NodeStatus.ONLINE,
            max_concurrency=limit,
            **fields,
        )
        NodeModel.objects.bulk_create(NodeModel(node=node, model_id=model) for model in fake.models)
        publish("nodes")

    async def post(self, path: str = "/v1/chat/completions", key: str | None = None, **body: Any) -> httpx.Response:
        body.setdefault("model", "model-a")
        if path == "/v1/chat/completions":
            body.setdefault("messages", [{"role": "user", "content": "hello"}])
        return await self.client.post(path, json=body, headers=bearer(key or self.key))

    async def events(self, **body: Any) -> list[str]:
        """The data of a stream's events."""
        response = await self.post(stream=True, **body)
        return [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]

    async def mint(self, name: str, *permissions: Permission, **values: Any) -> str:
        values.setdefault("permissions", permissions or tuple(Permission))
        _, text = await sync_to_async(mint_api_key)(owner=self.owner, name=name, actor=SYSTEM, **values)
        return text

    async def settled(self, count: int = 1) -> list[RequestEntry]:
        """The first `count` rows, once they are there."""
        async with asyncio.timeout(10):
            while len(self.recorder.entries) < count:
                await asyncio.sleep(0.005)
        return self.recorder.entries

    def shorten_timeouts(self, seconds: float) -> None:
        """Less patience with silent nodes than any setting allows, for tests that wait for its end."""
        table = self.engine.table
        nodes = {id: replace(node, timeout=seconds) for id, node in table.nodes.items()}
        holders = {name: tuple(nodes[node.id] for node in found) for name, found in table.holders.items()}
        self.engine.state.install(replace(table, nodes=nodes, holders=holders))

    async def excluded(self) -> set[str]:
        def read() -> set[str]:
            return set(NodeModel.objects.exclude(excluded_at=None).values_list("node__name", flat=True))

        return await sync_to_async(read)()


MakeFleet = Callable[..., Awaitable[Fleet]]


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def eventually(check: Callable[[], Any], timeout: float = 5.0) -> None:
    """Wait until `check()` (or what it returns, awaited) is true."""
    async with asyncio.timeout(timeout):
        while True:
            value = check()
            if isinstance(value, Awaitable):
                value = await value
            if value:
                return
            await asyncio.sleep(0.01)


@pytest.fixture
async def make_fleet(transactional_db: None) -> AsyncIterator[MakeFleet]:
    """`await make_fleet(queue_max=1, …)`: a gateway with these settings; everything is stopped at the end.

    It is served by the product's own protocol, or by uvicorn's with `plain_asgi=True`: without our extensions of ASGI.
    """
    running: list[tuple[uvicorn.Server, asyncio.Task[None], Fleet]] = []

    async def make(*, plain_asgi: bool = False, **config: Any) -> Fleet:
        fleet, server, task = await _start(config, plain_asgi=plain_asgi)
        running.append((server, task, fleet))
        return fleet

    yield make
    for server, task, fleet in running:
        await fleet.client.aclose()
        for node in fleet.nodes:
            await node.stop()
        server.should_exit = True
        await task
        await fleet.engine.stop()
        assert not fleet.engine.state.live.in_flight, "a slot leaked"
        assert not fleet.engine.state.stats().waiting, "a place in the queue leaked"


@pytest.fixture
async def fleet(make_fleet: MakeFleet) -> Fleet:
    """A gateway with default settings and no node yet."""
    return await make_fleet()


def _hana() -> User:
    return create_user(username="hana", role=Role.ADMINISTRATOR, password="a long walk along the river", actor=SYSTEM)[
        0
    ]


async def _start(config: dict[str, Any], *, plain_asgi: bool) -> tuple[Fleet, uvicorn.Server, asyncio.Task[None]]:
    owner = await User.objects.filter(username="hana").afirst() or await sync_to_async(_hana)()
    recorder = ListRecorder()
    engine = Engine(replace(settings.LLMLB, **config), recorder=recorder)  # type: ignore[arg-type]
    await engine.start()
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    server = uvicorn.Server(
        uvicorn.Config(
            Gateway(engine),
            lifespan="off",
            log_level="warning",
            http="httptools" if plain_asgi else BoundedProtocol,
            ws="none",
            proxy_headers=False,
        )
    )
    server.server_state = DrainingState(engine.config.client_timeout)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.005)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    client = httpx.AsyncClient(base_url=url, timeout=30, limits=limits, trust_env=False)
    fleet = Fleet(url=url, key="", engine=engine, client=client, recorder=recorder, owner=owner)
    fleet.key = await fleet.mint(
        f"tests {engine.config.port}{id(engine)}" if await ApiKey.objects.filter(name="tests").aexists() else "tests"
    )
    return fleet, server, task
