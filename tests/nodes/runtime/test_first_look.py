"""A node that starts on models that were put there a moment ago offers them in its first list."""

from __future__ import annotations

from pathlib import Path

from nodes.runtime.config import NodeConfig
from nodes.runtime.serving.logs import LogRing
from nodes.runtime.serving.node import Node
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
