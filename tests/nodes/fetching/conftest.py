"""A hub, a store of files, and pulls from them into a directory of the test's own."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nodes.runtime.fetching.origins import Origins
from nodes.runtime.fetching.progress import Progress
from nodes.runtime.fetching.pulls import Pulls
from nodes.runtime.fetching.sources import Wish
from tests.support.file_server import FileServer

WEIGHTS = random.Random(1).randbytes(300_000)
OTHER = random.Random(2).randbytes(300_000)
REPO = "Some-Org/Tiny-GGUF"
Pull = Callable[..., Progress]


@pytest.fixture
def hub() -> Iterator[FileServer]:
    with FileServer().running() as server:
        yield server


@pytest.fixture
def store() -> Iterator[FileServer]:
    """A server of files that is not the hub."""
    with FileServer().running() as server:
        yield server


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


def pulls_of(hub: FileServer, models: Path, *, env: dict[str, str] | None = None, **fields: Any) -> Pulls:
    models.mkdir(exist_ok=True)
    origins = Origins.from_environment({"HF_BASE_URL": hub.url, **(env or {})})
    return Pulls(models, origins, first_pause=0.01, **{"silence": 5.0, **fields})


@pytest.fixture
def pull(hub: FileServer, models: Path) -> Pull:
    """`pull("org/repo", **Wish's fields)`: fetch it, to the end, in a process state of its own."""

    def run(model: str = REPO, *, env: dict[str, str] | None = None, silence: float = 5.0, **wish: Any) -> Progress:
        pulls = pulls_of(hub, models, env=env, silence=silence)
        begun = pulls.start(Wish(model, **wish))
        assert begun.wait(20)
        return begun.progress

    return run


def in_place(models: Path) -> set[str]:
    """Every file that a scan could see."""
    found = set()
    for folder, folders, names in os.walk(models):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found |= {(Path(folder) / name).relative_to(models).as_posix() for name in names}
    return found
