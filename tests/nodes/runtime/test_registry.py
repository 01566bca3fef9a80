"""What a node can execute, and why it cannot execute the rest."""

from __future__ import annotations

import logging
import os
import shutil
import time
from pathlib import Path

import pytest

from nodes.runtime.backend import GpuBackend
from nodes.runtime.engines.base import Engine, Launch, Setup
from nodes.runtime.engines.catalogue import ENGINES
from nodes.runtime.files.scan import BEING_WRITTEN
from nodes.runtime.models import ModelFile, ModelFormat, Task
from nodes.runtime.registry import NO_GPU, ModelRegistry
from tests.support import model_files


class FakeEngine:
    """An engine that runs one family on some backends."""

    paths = frozenset({"/v1/chat/completions"})
    tasks = frozenset({Task.TEXT})

    def __init__(
        self,
        name: str = "fake",
        *,
        family: str = "llama",
        backends: frozenset[GpuBackend] = frozenset(GpuBackend),
        reads: ModelFormat = ModelFormat.GGUF,
        missing: str = "",
    ) -> None:
        self.name = name
        self.family = family
        self.backends = backends
        self.formats = frozenset({reads})
        self.missing = missing

    def is_installed(self) -> str:
        return self.missing

    def can_run(self, model: ModelFile, backend: GpuBackend) -> str:
        if backend not in self.backends:
            return f"{self.name} does not run on {backend}"
        return "" if self.family in model.architectures else f"{self.name} does not know {model.architectures[0]}"

    def paths_for(self, model: ModelFile) -> frozenset[str]:
        return self.paths

    def command(self, model: ModelFile, port: int, setup: Setup) -> Launch:
        return Launch(("true",))


def registry(
    root: Path, *engines: Engine, backend: GpuBackend = GpuBackend.CPU, require_gpu: bool = False, settle: float = 0
) -> ModelRegistry:
    made = ModelRegistry(root, engines or (FakeEngine(),), backend, require_gpu=require_gpu, settle=settle)
    made.refresh()
    return made


def executable(made: ModelRegistry, backend: GpuBackend | None = None) -> list[str]:
    return [model.id for model in made.list_executable_models(backend)]


def reasons(made: ModelRegistry) -> dict[str, str]:
    return {entry.model.id: entry.reason for entry in made.all()}


def test_only_what_an_engine_runs_is_executable_and_the_rest_has_its_reason(tmp_path: Path) -> None:
    model_files.gguf(tmp_path / "good.gguf")
    model_files.gguf(tmp_path / "strange.gguf", "unheard-of")
    model_files.gguf(tmp_path / "cut.gguf", cut=1)
    model_files.snapshot(tmp_path / "weights")
    made = registry(tmp_path)
    assert executable(made) == ["good"]
    found = reasons(made)
    assert found.pop("cut").startswith("cut.gguf is cut short")
    assert found == {
        "good": "",
        "strange": "fake does not know unheardof",
        "weights": "no engine here runs safetensors for text",
    }


def test_no_broken_neighbour_is_ever_executable_with_the_real_engines(tmp_path: Path) -> None:
    model_files.gguf(tmp_path / "good.gguf")
    neighbours = model_files.broken_neighbours(tmp_path)
    for backend in GpuBackend:
        made = registry(tmp_path, *ENGINES, backend=backend)
        found = reasons(made)
        assert set(executable(made)) <= {"good"}
        assert {model_id: words in found[model_id] for model_id, words in neighbours.items()} == dict.fromkeys(
            neighbours, True
        ), found


def test_nodes_of_two_backends_list_different_models_of_one_directory(tmp_path: Path) -> None:
    model_files.gguf(tmp_path / "everywhere.gguf", "llama")
    model_files.gguf(tmp_path / "marked.gguf", "gemma")
    engines = (FakeEngine(), FakeEngine("apple's", family="gemma", backends=frozenset({GpuBackend.METAL})))
    metal = registry(tmp_path, *engines, backend=GpuBackend.METAL)
    cuda = registry(tmp_path, *engines, backend=GpuBackend.CUDA)
    assert executable(metal) == ["everywhere", "marked"]
    assert executable(cuda) == ["everywhere"]
    assert executable(cuda, GpuBackend.METAL) == ["everywhere", "marked"]
    assert reasons(cuda)["marked"] == "fake does not know gemma; apple's does not run on cuda"


def test_is_compatible_asks_for_files_architecture_and_an_engine_that_is_here(tmp_path: Path) -> None:
    model_files.gguf(tmp_path / "good.gguf")
    model_files.gguf(tmp_path / "cut.gguf", cut=1)
    made = registry(tmp_path)
    models = {entry.model.id: entry.model for entry in made.all()}
    assert made.is_compatible(models["good"], GpuBackend.CUDA)
    assert not made.is_compatible(models["cut"], GpuBackend.CUDA)
    absent = registry(tmp_path, FakeEngine(missing="fake-server is not on the path"))
    assert not absent.is_compatible(models["good"], GpuBackend.CUDA)
    assert reasons(absent)["good"] == "fake would run it, but fake-server is not on the path"


def test_the_first_engine_that_is_here_gets_the_model(tmp_path: Path) -> None:
    model_files.gguf(tmp_path / "a.gguf")
    made = registry(tmp_path, FakeEngine("first", missing="it is not here"), FakeEngine("second"), FakeEngine("third"))
    assert [(entry.engine, entry.reason) for entry in made.all()] == [("second", "")]


def test_a_node_may_refuse_to_serve_without_a_gpu(tmp_path: Path) -> None:
    model_files.gguf(tmp_path / "a.gguf")
    made = registry(tmp_path, require_gpu=True)
    assert (executable(made), reasons(made)) == ([], {"a": NO_GPU})
    assert executable(registry(tmp_path, backend=GpuBackend.CUDA, require_gpu=True)) == ["a"]


def test_get_finds_the_one_that_is_executable(tmp_path: Path) -> None:
    model_files.gguf(tmp_path / "Same.gguf", "unheard-of")
    model_files.gguf(tmp_path / "same/a.gguf")
    made = registry(tmp_path)
    entry = made.get("same")
    assert entry is not None
    assert len(made.all()) == 2
    assert made.get("nothing") is None


def test_refresh_says_whether_the_list_is_another(tmp_path: Path) -> None:
    made = registry(tmp_path)
    assert not made.refresh()
    path = model_files.gguf(tmp_path / "a.gguf")
    assert made.refresh()
    assert not made.refresh()
    path.write_bytes(b"")
    assert made.refresh()
    assert executable(made) == []
    path.unlink()
    assert made.refresh()
    assert made.all() == []


def test_a_file_that_is_being_written_becomes_a_model_once_it_is_left_alone(tmp_path: Path) -> None:
    path = model_files.gguf(tmp_path / "a.gguf")
    made = registry(tmp_path, settle=30)
    assert reasons(made) == {"a": BEING_WRITTEN}
    os.utime(path, (time.time() - 31,) * 2)
    assert made.refresh()
    assert executable(made) == ["a"]


def test_a_directory_that_goes_away_and_comes_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "models"
    model_files.gguf(root / "a.gguf")
    made = registry(root)
    shutil.move(root, tmp_path / "elsewhere")
    with caplog.at_level(logging.ERROR):
        assert made.refresh()
        assert not made.refresh()
    assert made.problem == "the models directory cannot be read: no such file or directory"
    assert [record.levelname for record in caplog.records if record.levelno > logging.INFO] == ["ERROR"]
    shutil.move(tmp_path / "elsewhere", root)
    assert made.refresh()
    assert (executable(made), made.problem) == (["a"], "")


def test_the_log_says_what_is_served_what_is_not_and_what_is_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = model_files.gguf(tmp_path / "a.gguf")
    model_files.gguf(tmp_path / "cut.gguf", cut=1)
    with caplog.at_level(logging.INFO):
        made = registry(tmp_path)
        path.unlink()
        made.refresh()
    told = [(record.levelname, record.getMessage().partition(" reason=")[0]) for record in caplog.records]
    assert told == [("INFO", "served: model=a"), ("WARNING", "not served: model=cut"), ("INFO", "gone: model=a")]
