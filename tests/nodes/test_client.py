"""Calls to nodes off the hot path: bounded, direct, and silent about where they went."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from nodes.checking import check, list_models
from nodes.client import MAX_BYTES, CallFailed, Target, call
from nodes.fake_node import Behaviour, FakeNode
from nodes.listing import NotAModelList
from nodes.models import NodeType


@pytest.fixture
async def fake() -> AsyncIterator[FakeNode]:
    node = FakeNode(["a"])
    await node.start()
    yield node
    await node.kill()


def answering(status: int, headers: dict[str, str], body: Any) -> Callable[..., Any]:
    async def answer(request: Any, wire: Any) -> bool:
        await wire.reply(status, headers, body)
        return True

    return answer


async def test_an_answer_without_end_is_cut(fake: FakeNode) -> None:
    fake.answer = answering(200, {}, b"x" * (MAX_BYTES + 1))  # type: ignore[method-assign]
    with pytest.raises(CallFailed) as raised:
        await call(Target(fake.url), "/v1/models", timeout=5)
    assert raised.value.kind == "too_large"


async def test_a_redirect_is_not_followed(fake: FakeNode) -> None:
    other = FakeNode(["b"])
    await other.start()
    fake.answer = answering(302, {"location": other.url + "/v1/models"}, {})  # type: ignore[method-assign]
    try:
        with pytest.raises(NotAModelList, match="302"):
            await list_models(Target(fake.url), timeout=5)
        assert other.seen == []
    finally:
        await other.kill()


async def test_a_proxy_in_the_environment_is_not_asked(fake: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert (await call(Target(fake.url), "/v1/models", timeout=5)).status == 200


async def test_a_name_is_resolved_and_stays_in_the_host_header(fake: FakeNode) -> None:
    reply = await call(Target(f"http://localhost:{fake.port}"), "/v1/models", timeout=5)
    assert reply.status == 200
    assert fake.seen[-1].headers["host"] == f"localhost:{fake.port}"


async def test_failures_name_no_address_and_targets_show_no_key(fake: FakeNode) -> None:
    target = Target(fake.url, "secret")
    assert "secret" not in repr(target)
    await fake.kill()
    with pytest.raises(CallFailed) as raised:
        await call(target, "/v1/models", timeout=5)
    assert raised.value.is_connect
    assert "127.0.0.1" not in str(raised.value)
    assert str(fake.port) not in str(raised.value)


@pytest.mark.parametrize("mode", ["cut", "garbage"])
async def test_broken_answers(mode: str, fake: FakeNode) -> None:
    async def answer(request: Any, wire: Any) -> bool:
        await wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{" if mode == "cut" else b"\x00\x01\r\n\r\n")
        return False

    fake.answer = answer  # type: ignore[method-assign]
    result = await check(Target(fake.url), node_type=NodeType.VLLM, timeout=5)
    assert (result.ok, result.failures, result.connect_failed) == (False, 1, False)


async def test_ollamas_own_list_where_there_is_no_other(fake: FakeNode) -> None:
    async def answer(request: Any, wire: Any) -> bool:
        is_tags = request.path == "/api/tags"
        await wire.reply(200 if is_tags else 404, {}, {"models": [{"name": "x"}]} if is_tags else "not found")
        return True

    fake.answer = answer  # type: ignore[method-assign]
    assert [model.id for model in (await list_models(Target(fake.url), timeout=5)).models] == ["x"]


async def test_a_check_ends_in_its_time(fake: FakeNode) -> None:
    fake.behaviour = Behaviour(mode="hang")
    result = await check(Target(fake.url), node_type=NodeType.XLLM, timeout=2.5)
    assert (result.ok, result.failures, result.error) == (False, 2, "did not answer in time")
    assert (result.finished - result.started).total_seconds() < 3
