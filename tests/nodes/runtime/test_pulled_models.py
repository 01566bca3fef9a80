"""What is pulled is what is listed: whole, under the id that the pull told, for every kind of repository."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nodes.runtime.fetching.origins import Origins
from nodes.runtime.fetching.progress import PullState
from nodes.runtime.fetching.pulls import Pulls
from nodes.runtime.fetching.removal import delete_model
from nodes.runtime.fetching.sources import Wish
from nodes.runtime.files.scan import Scanner
from nodes.runtime.models import ModelFile
from tests.support import model_files
from tests.support.file_server import FileServer

REPO = "Some-Org/Some-Model"


@pytest.fixture
def hub() -> Iterator[FileServer]:
    with FileServer().running() as server:
        yield server


def several_quantizations(folder: Path) -> None:
    for name in ("Big-Q4_K_M", "Big-Q8_0"):
        model_files.gguf(folder / f"{name}.gguf")


def in_parts(folder: Path) -> None:
    model_files.split_gguf(folder / "Q4_K_M", "Big-Q4_K_M", 2)
    model_files.gguf(folder / "Big-Q8_0.gguf")


def seeing(folder: Path) -> None:
    model_files.gguf(folder / "Big.gguf", "qwen2vl")
    model_files.gguf(folder / "mmproj-F16.gguf", "clip", file_type=1)


def with_copies(folder: Path) -> None:
    """As Mistral's repositories are: the same weights in one file, under another name."""
    model_files.snapshot(folder, ["MistralForCausalLM"], shards=2)
    model_files.safetensors(folder / "consolidated.safetensors", {"other": (8, 8)})


def single_weights(folder: Path) -> None:
    model_files.snapshot(folder)
    (folder / "model.safetensors").rename(folder / "one.safetensors")
    model_files.safetensors(folder / "two.safetensors")


def painter(folder: Path) -> None:
    model_files.diffusers(folder)
    model_files.checkpoint(folder / "v1-5-pruned.safetensors")


def voices(folder: Path) -> None:
    for name in ("amy", "joe"):
        model_files.piper(folder / f"en/en_US/{name}/low/en_US-{name}-low.onnx")


def encoder(folder: Path) -> None:
    model_files.embedding(folder, below="onnx")


KINDS: list[tuple[Callable[[Path], Any], dict[str, str], str, int]] = [
    (lambda folder: model_files.gguf(folder / "Only.gguf"), {}, "some-org/some-model", 1),
    (several_quantizations, {"quantization": "Q8_0"}, "some-org/some-model/big-q8_0", 1),
    (in_parts, {"quantization": "Q4_K_M"}, "some-org/some-model/big-q4_k_m", 2),
    (seeing, {}, "some-org/some-model", 2),
    (model_files.snapshot, {}, "some-org/some-model", 4),
    (with_copies, {}, "some-org/some-model", 6),
    (single_weights, {"filename": "one.safetensors"}, "some-org/some-model", 4),
    (painter, {"filename": "v1-5-pruned.safetensors"}, "some-org/some-model", 1),
    (painter, {}, "some-org/some-model", 5),
    (model_files.whisper, {}, "some-org/some-model", 4),
    (encoder, {}, "some-org/some-model", 3),
    (voices, {"filename": "en/en_US/amy/low/en_US-amy-low.onnx"}, "some-org/some-model/en_us-amy-low", 2),
    (lambda folder: model_files.piper(folder / "en.onnx"), {}, "some-org/some-model", 2),
    (model_files.diffusers, {}, "some-org/some-model", 5),
]
NAMES = [
    "a gguf",
    "one of several gguf",
    "a gguf in parts",
    "a gguf that sees",
    "a snapshot",
    "a snapshot with copies",
    "one of several weights",
    "an image model in one file",
    "the pipeline beside it",
    "whisper",
    "an encoder",
    "one of many voices",
    "a voice",
    "a pipeline",
]


@pytest.mark.parametrize(("make", "asked", "model_id", "files"), KINDS, ids=NAMES)
def test_a_pulled_model_is_listed_under_the_id_that_was_told(
    hub: FileServer,
    tmp_path: Path,
    make: Callable[[Path], Any],
    asked: dict[str, str],
    model_id: str,
    files: int,
) -> None:
    repository, models = tmp_path / "repository", tmp_path / "models"
    models.mkdir()
    make(repository)
    paths = [path for path in repository.rglob("*") if path.is_file()]
    hub.add_repository(REPO, {path.relative_to(repository).as_posix(): path.read_bytes() for path in paths})
    done = fetch(hub, models, **asked)
    assert (done.status, done.error) == (PullState.SUCCESS, "")
    (model,) = scan(models)
    assert (model.id, model.problem) == (model_id, "")
    assert done.model == model_id
    assert len(model.files) == files
    delete_model(model, models)
    assert scan(models) == []
    assert [path for path in models.iterdir() if not path.name.startswith(".")] == []


def test_a_second_voice_stands_beside_the_first(hub: FileServer, tmp_path: Path) -> None:
    repository, models = tmp_path / "repository", tmp_path / "models"
    models.mkdir()
    voices(repository)
    paths = [path for path in repository.rglob("*") if path.is_file()]
    hub.add_repository(REPO, {path.relative_to(repository).as_posix(): path.read_bytes() for path in paths})
    for name in ("amy", "joe"):
        fetch(hub, models, filename=f"en/en_US/{name}/low/en_US-{name}-low.onnx")
    assert [(model.id, model.problem) for model in scan(models)] == [
        ("some-org/some-model/en_us-amy-low", ""),
        ("some-org/some-model/en_us-joe-low", ""),
    ]


def fetch(hub: FileServer, models: Path, **asked: Any) -> Any:
    pulls = Pulls(models, Origins.from_environment({"HF_BASE_URL": hub.url}), first_pause=0.01)
    begun = pulls.start(Wish(REPO, **asked))
    assert begun.wait(20)
    return begun.progress


def scan(models: Path) -> list[ModelFile]:
    return Scanner(models, settle=0).scan()


def hub_cache(models: Path) -> Path:
    """A repository in Hugging Face's own cache: two revisions that share their tokenizer."""
    repo = models / "models--Org--Name"
    for revision, content in (("aaa", "old"), ("bbb", "new")):
        folder = model_files.snapshot(repo / "snapshots" / revision)
        for path in list(folder.iterdir()):
            shared = path.name.startswith("tokenizer")
            blob = repo / "blobs" / f"{path.name}-{'both' if shared else content}"
            blob.parent.mkdir(exist_ok=True)
            path.rename(blob)
            path.symlink_to(Path("../../blobs") / blob.name)
    (repo / "refs").mkdir()
    (repo / "refs/main").write_text("bbb")
    return repo


def test_deleting_from_the_cache_of_hugging_face_frees_the_disk_and_harms_no_other_revision(tmp_path: Path) -> None:
    repo = hub_cache(tmp_path)
    (model,) = scan(tmp_path)
    size = model.size_bytes
    assert delete_model(model, tmp_path) > size
    assert {path.name.rpartition("-")[2] for path in (repo / "blobs").iterdir()} == {"old", "both"}
    (model,) = scan(tmp_path)
    assert (model.id, model.path.name, model.problem) == ("org/name", "aaa", "")
    delete_model(model, tmp_path)
    assert not (repo / "blobs").exists()
    assert scan(tmp_path) == []


def test_no_empty_folder_is_left_where_the_models_directory_is_a_link(tmp_path: Path) -> None:
    model_files.gguf(tmp_path / "real/org/name/a.gguf")
    (tmp_path / "models").symlink_to("real")
    (model,) = scan(tmp_path / "models")
    delete_model(model, tmp_path / "models")
    assert list((tmp_path / "real").iterdir()) == []
