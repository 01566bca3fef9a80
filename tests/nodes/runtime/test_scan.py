"""A directory of models: under which ids they are found, where links lead, and what changes from scan to scan."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from nodes.runtime.files.scan import BEING_WRITTEN, Scanner
from tests.nodes.runtime.scanning import problem, scan, whole
from tests.support import model_files


def test_an_empty_directory_has_no_models(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.md").write_text("nothing")
    assert Scanner(tmp_path).scan() == []


def test_a_directory_that_is_not_there_is_the_callers_to_tell(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Scanner(tmp_path / "gone").scan()


def test_ids_are_paths_in_lower_case(tmp_path: Path) -> None:
    model_files.snapshot(tmp_path / "Org/Model-7B")
    model_files.gguf(tmp_path / "Top.Q4_K_M.gguf")
    model_files.gguf(tmp_path / "Alone/whatever.gguf")
    model_files.gguf(tmp_path / "Several/A.gguf")
    model_files.gguf(tmp_path / "Several/B.gguf")
    assert whole(tmp_path) == ["alone", "org/model-7b", "several/a", "several/b", "top.q4_k_m"]


def test_no_link_leads_out_of_the_directory(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "models"
    inside.mkdir()
    model_files.snapshot(outside / "secret")
    model_files.gguf(outside / "secret.gguf")
    (inside / "folder").symlink_to(outside / "secret")
    (inside / "file.gguf").symlink_to(outside / "secret.gguf")
    (inside / "up").symlink_to("..")
    models = scan(inside)
    assert set(models) == {"file", "folder", "up"}
    assert all("leads out of the models directory" in model.problem for model in models.values())


def test_weights_behind_a_link_that_leads_out_are_not_merely_missing(tmp_path: Path) -> None:
    folder = model_files.snapshot(tmp_path / "models/a")
    (folder / "config.json").rename(tmp_path / "config.json")
    (folder / "config.json").symlink_to(tmp_path / "config.json")
    model_files.diffusers(tmp_path / "models/b")
    (tmp_path / "models/b/vae/more.bin").symlink_to(tmp_path / "config.json")
    models = scan(tmp_path / "models")
    assert models["a"].problem.startswith("config.json is a link that leads out")
    assert models["b"].problem.startswith("more.bin is a link that leads out")


def test_links_in_circles_end(tmp_path: Path) -> None:
    model_files.gguf(tmp_path / "a/model.gguf")
    (tmp_path / "a/self").symlink_to(".")
    (tmp_path / "a/up").symlink_to("..")
    (tmp_path / "one.gguf").symlink_to("two.gguf")
    (tmp_path / "two.gguf").symlink_to("one.gguf")
    (tmp_path / "dangling.gguf").symlink_to("nothing")
    models = scan(tmp_path)
    assert whole(tmp_path) == ["a"]
    assert {model_id for model_id in models if models[model_id].problem} == {"dangling", "one", "two"}


def test_a_file_reached_by_a_link_inside_is_a_model(tmp_path: Path) -> None:
    model_files.gguf(tmp_path / "store/data.bin").rename(tmp_path / "store/blob")
    (tmp_path / "linked.gguf").symlink_to("store/blob")
    assert whole(tmp_path) == ["linked"]


def test_the_models_directory_may_itself_be_a_link(tmp_path: Path) -> None:
    model_files.gguf(tmp_path / "real/a.gguf")
    (tmp_path / "models").symlink_to("real")
    assert whole(tmp_path / "models") == ["a"]


def test_a_cache_of_hugging_face_shows_its_repositories_in_the_revision_that_is_in_use(tmp_path: Path) -> None:
    repo = tmp_path / "models--Qwen--Qwen2-0.5B"
    for revision in ("aaa", "bbb"):
        model_files.snapshot(repo / "snapshots" / revision, ["Qwen2ForCausalLM"])
    weights = repo / "snapshots/aaa/model.safetensors"
    (repo / "blobs").mkdir()
    weights.rename(repo / "blobs/0123")
    weights.symlink_to("../../blobs/0123")
    (repo / "refs").mkdir()
    (repo / "refs/main").write_text("aaa")
    model = scan(tmp_path)["qwen/qwen2-0.5b"]
    assert (model.path, model.problem) == (repo / "snapshots/aaa", "")
    assert len(scan(tmp_path)) == 1


def test_a_name_that_cannot_be_an_id_is_told(tmp_path: Path) -> None:
    model_files.gguf(tmp_path / "my model (v2)/a.gguf")
    model_files.gguf(tmp_path / "日本語.gguf")
    models = scan(tmp_path)
    assert list(models) == ["___", "my_model__v2_"]
    assert all("rename it" in model.problem for model in models.values())


def test_a_name_that_is_no_text_is_told(tmp_path: Path) -> None:
    path = model_files.gguf(tmp_path / "a.gguf")
    os.rename(os.fsencode(path), os.fsencode(tmp_path) + b"/\xff\xfe.gguf")
    (model,) = scan(tmp_path).values()
    model.id.encode()
    model.problem.encode()
    assert "rename it" in model.problem


def test_of_two_models_with_one_id_the_first_by_path_is_served(tmp_path: Path) -> None:
    model_files.gguf(tmp_path / "Same.gguf")
    model_files.snapshot(tmp_path / "same")
    models = Scanner(tmp_path, settle=0).scan()
    assert [(model.id, model.problem) for model in models] == [
        ("same", ""),
        ("same", "has the same id as Same.gguf, which is served under it"),
    ]


def test_a_broken_model_takes_no_id_from_a_whole_one(tmp_path: Path) -> None:
    model_files.gguf(tmp_path / "Same.gguf", cut=1)
    model_files.snapshot(tmp_path / "same")
    models = Scanner(tmp_path, settle=0).scan()
    assert [bool(model.problem) for model in models] == [False, True]
    assert "cut short" in models[1].problem


def test_hidden_files_and_folders_are_no_models(tmp_path: Path) -> None:
    model_files.gguf(tmp_path / ".pulling/a.gguf")
    model_files.gguf(tmp_path / "._a.gguf")
    assert Scanner(tmp_path).scan() == []


def test_what_may_not_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model_files.gguf(tmp_path / "closed/a.gguf")
    plain = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return plain(path)

    monkeypatch.setattr("nodes.runtime.files.tree.os.scandir", refuse)
    assert problem(tmp_path) == "cannot be read: permission denied"


def test_a_file_that_aria2_has_only_begun_is_not_a_model(tmp_path: Path) -> None:
    model_files.gguf(tmp_path / "a.gguf")
    model_files.snapshot(tmp_path / "b")
    (tmp_path / "a.gguf.aria2").touch()
    (tmp_path / "b/model.safetensors.aria2").touch()
    assert [model.problem for model in scan(tmp_path).values()] == [
        "a.gguf is not downloaded yet (aria2)",
        "model.safetensors is not downloaded yet (aria2)",
    ]
    (tmp_path / "a.gguf.aria2").unlink()
    assert whole(tmp_path) == ["a"]


def test_a_file_that_was_changed_a_moment_ago_is_not_yet_a_model(tmp_path: Path) -> None:
    path = model_files.gguf(tmp_path / "a.gguf")
    scanner = Scanner(tmp_path, settle=5)
    assert [model.problem for model in scanner.scan()] == [BEING_WRITTEN]
    os.utime(path, (time.time() - 6,) * 2)
    assert [model.problem for model in scanner.scan()] == [""]
    with path.open("r+b") as file:
        file.write(b"GGUF")
    assert [model.problem for model in scanner.scan()] == [BEING_WRITTEN]


def test_what_changes_is_seen_by_the_next_scan(tmp_path: Path) -> None:
    model_files.gguf(tmp_path / "org/a.gguf")
    scanner = Scanner(tmp_path, settle=0)
    assert [model.id for model in scanner.scan()] == ["org"]
    folder = model_files.snapshot(tmp_path / "org/deep/b")
    assert [model.id for model in scanner.scan()] == ["org", "org/deep/b"]
    (folder / "model.safetensors").write_bytes(b"")
    assert [bool(model.problem) for model in scanner.scan()] == [False, True]
    shutil.rmtree(tmp_path / "org")
    assert scanner.scan() == []


def test_headers_of_files_that_have_not_changed_are_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        model_files.gguf(tmp_path / f"{name}.gguf")
    scanner = Scanner(tmp_path, settle=0)
    before = scanner.scan()
    read: list[Path] = []
    plain = os.open

    def watched(path: Path, flags: int) -> int:
        read.append(path)
        return plain(path, flags)

    monkeypatch.setattr("nodes.runtime.files.reading.os.open", watched)
    assert scanner.scan() == before
    assert read == []
    model_files.gguf(tmp_path / "b.gguf", vocabulary=9)
    scanner.scan()
    assert read == [tmp_path / "b.gguf"]


def test_a_file_replaced_by_one_of_the_same_size_and_time_is_read_again(tmp_path: Path) -> None:
    path = model_files.gguf(tmp_path / "a.gguf", "llama")
    told = path.stat()
    scanner = Scanner(tmp_path, settle=0)
    assert [model.architectures for model in scanner.scan()] == [("llama",)]
    path.write_bytes(path.read_bytes().replace(b"llama", b"gemma"))
    os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns))
    assert [model.architectures for model in scanner.scan()] == [("gemma",)]


def test_a_thousand_models_take_less_than_two_seconds(tmp_path: Path) -> None:
    """Processor time: the machine's other work is not ours."""
    for number in range(500):
        model_files.snapshot(tmp_path / f"org-{number % 20}/model-{number}")
    for number in range(500):
        model_files.gguf(tmp_path / f"gguf/model-{number}.gguf", vocabulary=200, tensors=50)
    scanner = Scanner(tmp_path, settle=0)
    started = time.process_time()
    assert sum(not model.problem for model in scanner.scan()) == 1000
    first = time.process_time() - started
    started = time.process_time()
    assert len(scanner.scan()) == 1000
    again = time.process_time() - started
    assert first < 2
    assert again < 0.5
