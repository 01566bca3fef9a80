"""Models that were put there a moment ago: in the first list, and in what the node tells of itself."""

from __future__ import annotations

import json
from pathlib import Path

from nodes.runtime.config import NodeConfig
from nodes.runtime.serving.http import Message, Request
from nodes.runtime.serving.logs import LogRing
from nodes.runtime.serving.node import Node
from nodes.runtime.serving.telling import Telling
from tests.nodes.runtime.test_registry import FakeEngine
from tests.support import model_files


async def test_models_that_were_copied_a_moment_ago_are_in_the_first_list(tmp_path: Path) -> None:
    model_files.gguf(tmp_path / "a.gguf")
    node = Node(NodeConfig(models_dir=tmp_path), LogRing(), engines=(FakeEngine(),))
    await node.start()
    try:
        assert [entry.model.id for entry in node.executable()] == ["a"]
    finally:
        await node.stop()


async def test_files_that_are_being_written_are_not_counted_as_refused(tmp_path: Path) -> None:
    """So that the number changes, and the gateway asks for the reasons again, when the true reason is known."""
    node = Node(NodeConfig(models_dir=tmp_path), LogRing(), engines=(FakeEngine(),))
    await node.start()
    try:
        model_files.gguf(tmp_path / "strange.gguf", "unheard-of")
        model_files.gguf(tmp_path / "cut.gguf", cut=1)
        await node.refresh()
        health = await Telling(node).health(
            Request.open({"method": "GET", "path": "/api/health", "headers": []}, _none)
        )
        assert json.loads(health.body)["models"] == {"executable": 0, "refused": 1}
        assert len(node.listed()) == 2
    finally:
        await node.stop()


async def _none() -> Message:
    return {"type": "http.disconnect"}
