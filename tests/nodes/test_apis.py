"""Which APIs a node serves itself: asked of it, kept with it, shown, and taken back when a request shows otherwise."""

from __future__ import annotations

import time

import pytest

from nodes import services
from nodes.apis import native_apis
from nodes.client import Target
from nodes.fake.messages import PATHS
from nodes.fake_node import Behaviour, FakeNode
from nodes.models import Node

MESSAGES = "/v1/messages"


async def told(fake: FakeNode, behaviour: Behaviour | None = None) -> frozenset[str] | None:
    await fake.start()
    fake.behaviour = behaviour or Behaviour()
    try:
        return await native_apis(Target(fake.url, fake.api_key or ""), deadline=time.monotonic() + 0.9)
    finally:
        await fake.stop()


@pytest.mark.parametrize("kind", ["llama_cpp", "vllm", "ollama", "lm_studio", "openai_compatible", "web_page"])
async def test_what_is_served_is_told_from_what_is_not(kind: str) -> None:
    assert await told(FakeNode(kind=kind, apis=[MESSAGES])) == frozenset({MESSAGES})
    assert await told(FakeNode(kind=kind)) == frozenset()


async def test_with_a_key() -> None:
    assert await told(FakeNode(api_key="secret", apis=PATHS)) == PATHS


async def test_a_node_that_does_not_answer_tells_nothing() -> None:
    assert await told(FakeNode(apis=PATHS), Behaviour(mode="hang")) is None


async def test_asking_computes_nothing() -> None:
    fake = FakeNode(apis=PATHS)
    await told(fake)
    assert {request.body for request in fake.seen} == {b"{}"}


@pytest.mark.django_db
def test_a_request_that_shows_otherwise_is_remembered() -> None:
    node = Node.objects.create(name="n", base_url="http://127.0.0.1:9", native_apis=sorted(PATHS))
    for _ in range(2):
        services.forget_api(node_id=node.pk, path=MESSAGES)
    services.forget_api(node_id=node.pk + 1, path=MESSAGES)
    node.refresh_from_db()
    assert node.native_apis == sorted(PATHS - {MESSAGES})
