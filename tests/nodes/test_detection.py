"""Which engine a node runs, told by what each real one says."""

from __future__ import annotations

import time

import pytest

from nodes.checking import list_models
from nodes.client import Target
from nodes.detect import Detection, detect
from nodes.fake_node import Behaviour, FakeNode
from nodes.models import NodeType


async def detected(fake: FakeNode, api_key: str = "") -> Detection:
    await fake.start()
    try:
        target = Target(fake.url, api_key)
        listing = await list_models(target, timeout=5)
        return await detect(target, listing.reply)
    finally:
        await fake.stop()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("xllm", NodeType.XLLM),
        ("ollama", NodeType.OLLAMA),
        ("lm_studio", NodeType.LM_STUDIO),
        ("vllm", NodeType.VLLM),
        ("llama_cpp", NodeType.LLAMA_CPP),
        ("llama_cpp_python", NodeType.OPENAI_COMPATIBLE),
        ("openai_compatible", NodeType.OPENAI_COMPATIBLE),
    ],
)
async def test_each_engine(kind: str, expected: NodeType) -> None:
    started = time.monotonic()
    detection = await detected(FakeNode(kind=kind))
    assert detection.node_type == expected
    assert detection.sure
    assert detection.reason
    assert time.monotonic() - started < 1.0


@pytest.mark.parametrize("kind", ["xllm", "ollama", "vllm", "llama_cpp"])
async def test_with_a_key(kind: str) -> None:
    detection = await detected(FakeNode(kind=kind, api_key="secret"), "secret")
    assert detection.node_type.value == kind


async def test_slots_of_llama_cpp() -> None:
    detection = await detected(FakeNode(kind="llama_cpp"))
    assert detection.facts.concurrency == 4
    assert detection.facts.version == "b6700-abcdef0"


async def test_gpu_of_xllm() -> None:
    facts = (await detected(FakeNode(kind="xllm"))).facts
    assert (facts.gpu_backend, facts.gpu_count, facts.gpu_memory_total) == ("cuda", 2, 48 << 30)
    assert facts.version == "5.2.0"
    assert facts.started_at == "2026-11-21T20:00:00.000000Z"


async def test_pages_that_do_not_answer_leave_it_unsure_within_a_second() -> None:
    fake = FakeNode()
    await fake.start()
    try:
        target = Target(fake.url)
        listing = await list_models(target, timeout=5)
        fake.behaviour = Behaviour(mode="hang")
        started = time.monotonic()
        detection = await detect(target, listing.reply)
    finally:
        await fake.stop()
    assert not detection.sure
    assert time.monotonic() - started < 1.1
