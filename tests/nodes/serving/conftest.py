"""Real nodes as processes, over directories of models that only have headers, with engines that stand in."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support import stand_in_engine
from tests.support.node_server import NodeServer

MakeNode = Callable[..., NodeServer]


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every engine that is a program, stood in for."""
    return stand_in_engine.install(tmp_path_factory.mktemp("engines"))


@pytest.fixture
def serve(tmp_path: Path, programs: Path) -> Iterator[MakeNode]:
    """`serve(models_dir, idle_secs=1, …)`: a node that is up, with a log of what its engines saw at `log_of(node)`."""
    with ExitStack() as stack:

        def make(models_dir: Path, *, environment: dict[str, str] | None = None, **settings: Any) -> NodeServer:
            aged(models_dir)
            log = {"STAND_IN_LOG": str(models_dir.parent / f"{models_dir.name}.log")}
            node = NodeServer(models_dir, programs=programs, environment={**log, **(environment or {})}, **settings)
            return stack.enter_context(node)

        yield make


def seen(node: NodeServer) -> list[str]:
    """What the node's engines have noted, line by line."""
    path = node.models_dir.parent / f"{node.models_dir.name}.log"
    return path.read_text().splitlines() if path.exists() else []


def aged(folder: Path) -> Path:
    """As if every file had been there for a minute: what was just written is not listed yet."""
    then = time.time() - 60
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (then, then))
    return folder
