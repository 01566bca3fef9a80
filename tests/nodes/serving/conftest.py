"""Real nodes as processes, over directories of models that only have headers, with engines that stand in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import stand_in_engine
from tests.support.node_server import NodeServer, serving_nodes

MakeNode = Callable[..., NodeServer]


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every engine that is a program, stood in for."""
    return stand_in_engine.install(tmp_path_factory.mktemp("engines"))


@pytest.fixture
def serve(programs: Path) -> Iterator[MakeNode]:
    """See `serving_nodes`."""
    with serving_nodes(programs) as make:
        yield make
