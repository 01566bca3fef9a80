"""A node without a key listens on loopback, where every page in a browser of that machine can reach it."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from nodes.runtime.config import NodeConfig
from nodes.runtime.serving.app import NodeApp
from nodes.runtime.serving.logs import LogRing
from nodes.runtime.serving.node import Node
from tests.nodes.runtime.test_registry import FakeEngine

CHAT = "/v1/chat/completions"
UNKNOWN = {"model": "nothing"}


async def status_of(root: Path, method: str, path: str, headers: dict[str, str], *, api_key: str = "") -> int:
    node = Node(NodeConfig(models_dir=root, api_key=api_key), LogRing(), engines=(FakeEngine(),))
    transport = httpx.ASGITransport(NodeApp(node))
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:32769") as client:
            return (await client.request(method, path, headers=headers, json=UNKNOWN)).status_code
    finally:
        await node.stop()


@pytest.mark.parametrize("path", [CHAT, "/api/models/unload", "/api/models/refresh"])
async def test_a_page_of_another_server_can_order_nothing(tmp_path: Path, path: str) -> None:
    for origin in ("https://evil.example", "null", "http://127.0.0.1:8000"):
        assert await status_of(tmp_path, "POST", path, {"origin": origin}) == 403


async def test_programs_and_the_nodes_own_origin_are_served(tmp_path: Path) -> None:
    assert await status_of(tmp_path, "POST", CHAT, {}) == 404
    assert await status_of(tmp_path, "POST", CHAT, {"origin": "http://127.0.0.1:32769"}) == 404
    assert await status_of(tmp_path, "GET", "/v1/models", {"origin": "https://evil.example"}) == 200


async def test_who_knows_the_key_may_call_from_anywhere(tmp_path: Path) -> None:
    headers = {"origin": "https://own.example", "authorization": "Bearer secret"}
    assert await status_of(tmp_path, "POST", CHAT, headers, api_key="secret") == 404
    assert await status_of(tmp_path, "POST", CHAT, {"origin": "https://own.example"}, api_key="secret") == 401
