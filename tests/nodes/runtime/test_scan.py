"""A directory of models: which are there, under which ids, and what is wrong with the others."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from nodes.runtime.files.scan import BEING_WRITTEN, Scanner
from nodes.runtime.models import ModelFile, ModelFormat, Task
from tests.support import model_files


def scan(root: Path) -> dict[str, ModelFile]:
    models = Scanner(root, settle=0).scan()
    assert len({model.id for model in models}) == len(models)
    return {model.id: model for model in models}


def whole(root: Path) -> list[str]:
    return [model.id for model in Scanner(root, settle=0).scan() if not model.problem]


def problem(root: Path) -> str:
    (model,) = Scanner(root, settle=0).scan()
    return model.problem


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


def test_a_snapshot(tmp_path: Path) -> None:
    folder = model_files.snapshot(tmp_path / "a", ["MixtralForCausalLM"], shards=2, config={"num_local_experts": 8})
    model = scan(tmp_path)["a"]
    assert (model.path, model.format, model.task, model.problem) == (folder, ModelFormat.SAFETENSORS, Task.TEXT, "")
    assert (model.architectures, model.declared) == (("mixtralforcausallm",), ("MixtralForCausalLM",))
    assert (model.context_length, model.expert_count, model.tensor_count) == (8192, 8, 2)
    assert (model.quantization, model.has_chat_template) == ("BF16", True)
    assert model.size_bytes == sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert set(model.files) == set(folder.iterdir())


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("LlamaForCausalLM", Task.TEXT),
        ("GPT2LMHeadModel", Task.TEXT),
        ("Qwen2VLForConditionalGeneration", Task.TEXT),
        ("BertModel", Task.EMBEDDING),
        ("XLMRobertaForSequenceClassification", Task.RERANK),
        ("WhisperForConditionalGeneration", Task.SPEECH_TO_TEXT),
    ],
)
def test_what_a_snapshot_is_for(tmp_path: Path, architecture: str, task: Task) -> None:
    model_files.snapshot(tmp_path / "a", [architecture])
    assert scan(tmp_path)["a"].task is task


def test_a_gguf_in_parts_is_one_model_and_its_first_part_is_what_engines_get(tmp_path: Path) -> None:
    paths = model_files.split_gguf(tmp_path / "big", "Big-Q8", 3, architecture="qwen2")
    model = scan(tmp_path)["big"]
    assert (model.path, model.files, model.problem) == (paths[0], tuple(paths), "")
    assert model.size_bytes == sum(path.stat().st_size for path in paths)


def test_later_parts_of_a_gguf_say_nothing_but_which_part_they_are(tmp_path: Path) -> None:
    model_files.split_gguf(tmp_path / "big", "big", 1, architecture="qwen2")
    (tmp_path / "big/big-00001-of-00001.gguf").rename(tmp_path / "big/other.txt")
    model_files.gguf(tmp_path / "big/big-00001-of-00002.gguf", "qwen2", split=(0, 2))
    later = model_files.gguf_header([("split.no", 4, 1), ("split.count", 4, 2)], [("x", (4,), 0, 0)]) + b"\0" * 16
    (tmp_path / "big/big-00002-of-00002.gguf").write_bytes(later)
    assert whole(tmp_path) == ["big"]


def test_a_part_that_is_not_what_its_name_says(tmp_path: Path) -> None:
    model_files.split_gguf(tmp_path / "big", "big", 2)
    shutil.copy(tmp_path / "big/big-00001-of-00002.gguf", tmp_path / "big/big-00002-of-00002.gguf")
    assert problem(tmp_path) == "big-00002-of-00002.gguf is not the part that its name says"


def test_what_lets_a_model_see_goes_with_it(tmp_path: Path) -> None:
    model_files.gguf(tmp_path / "seeing/model.gguf", "qwen2vl")
    f16 = model_files.gguf(tmp_path / "seeing/mmproj-F16.gguf", "clip", file_type=1)
    model_files.gguf(tmp_path / "seeing/mmproj-F32.gguf", "clip", file_type=0)
    models = scan(tmp_path)
    assert list(models) == ["seeing"]
    assert models["seeing"].projector == f16


def test_what_lets_a_model_see_is_not_given_to_strangers(tmp_path: Path) -> None:
    for name, architecture in (("a", "llama"), ("b", "gemma"), ("mmproj", "clip")):
        model_files.gguf(tmp_path / f"mixed/{name}.gguf", architecture)
    assert [(model.id, model.projector) for model in scan(tmp_path).values()] == [("mixed/a", None), ("mixed/b", None)]
    shutil.rmtree(tmp_path / "mixed")
    model_files.gguf(tmp_path / "mmproj.gguf", "clip")
    assert problem(tmp_path) == "it lets another model see, and that model is not beside it"


@pytest.mark.parametrize("kind", ["adapter", "imatrix", "vocab"])
def test_a_gguf_that_is_no_model(tmp_path: Path, kind: str) -> None:
    model_files.gguf(tmp_path / "a.gguf", extra=[("general.type", model_files.STRING, kind)])
    assert problem(tmp_path).endswith(("not a whole model", "not a model"))


def test_every_broken_neighbour_is_listed_with_its_reason(tmp_path: Path) -> None:
    expected = model_files.broken_neighbours(tmp_path)
    unknown = {"broken/unknown", "broken/unknown-architecture"}  # their files are whole: engines refuse them
    models = scan(tmp_path)
    assert set(models) == set(expected)
    for model_id, words in expected.items():
        if model_id in unknown:
            assert (models[model_id].problem, words in models[model_id].architectures[0]) == ("", True)
        else:
            assert words in models[model_id].problem


def test_the_other_kinds_of_models(tmp_path: Path) -> None:
    model_files.whisper(tmp_path / "hearing")
    model_files.piper(tmp_path / "speaking/en.onnx")
    model_files.embedding(tmp_path / "encoder")
    model_files.embedding(tmp_path / "exported", below="onnx")
    model_files.diffusers(tmp_path / "painting")
    found = {model.id: (model.format, model.task, model.path) for model in scan(tmp_path).values()}
    assert found == {
        "hearing": (ModelFormat.CTRANSLATE2, Task.SPEECH_TO_TEXT, tmp_path / "hearing"),
        "speaking": (ModelFormat.PIPER, Task.TEXT_TO_SPEECH, tmp_path / "speaking/en.onnx"),
        "encoder": (ModelFormat.ONNX, Task.EMBEDDING, tmp_path / "encoder/model.onnx"),
        "exported": (ModelFormat.ONNX, Task.EMBEDDING, tmp_path / "exported/onnx/model.onnx"),
        "painting": (ModelFormat.DIFFUSERS, Task.IMAGE, tmp_path / "painting"),
    }
    assert whole(tmp_path) == sorted(found)


def test_an_encoder_with_both_kinds_of_weights_is_two_models(tmp_path: Path) -> None:
    model_files.snapshot(tmp_path / "e5", ["BertModel"])
    model_files.onnx(tmp_path / "e5/onnx/model.onnx")
    assert whole(tmp_path) == ["e5", "e5/onnx"]


def test_the_folders_of_a_snapshot_are_no_models_of_their_own(tmp_path: Path) -> None:
    model_files.snapshot(tmp_path / "sentences", ["BertModel"])
    (tmp_path / "sentences/1_Pooling").mkdir()
    model_files.write_json(tmp_path / "sentences/1_Pooling/config.json", {"pooling_mode_mean_tokens": True})
    assert list(scan(tmp_path)) == ["sentences"]


@pytest.mark.parametrize("cut", [1, 4, 5, 20, 60])
def test_a_whisper_model_cut_short(tmp_path: Path, cut: int) -> None:
    model_files.whisper(tmp_path / "w", cut=cut)
    assert problem(tmp_path).startswith("model.bin is ")


@pytest.mark.parametrize("cut", [1, 100, 256])
def test_a_graph_cut_short(tmp_path: Path, cut: int) -> None:
    model_files.embedding(tmp_path / "e")
    model_files.onnx(tmp_path / "e/model.onnx", cut=cut)
    assert problem(tmp_path).startswith("model.onnx is cut short")


def test_a_part_of_a_pipeline_that_is_missing(tmp_path: Path) -> None:
    model_files.diffusers(tmp_path / "sd")
    (tmp_path / "sd/vae/diffusion_pytorch_model.safetensors").unlink()
    assert problem(tmp_path) == "vae: has no weights: no .safetensors, .gguf or .onnx file"
    shutil.rmtree(tmp_path / "sd/vae")
    assert problem(tmp_path) == "its part vae is missing"


@pytest.mark.parametrize("name", ["StableDiffusionPipeline", " ", "", 5])
def test_a_pipeline_of_nothing_is_no_model(tmp_path: Path, name: object) -> None:
    (tmp_path / "sd").mkdir()
    model_files.write_json(tmp_path / "sd/model_index.json", {"_class_name": name})
    assert problem(tmp_path) in {"none of its parts has weights", "model_index.json names no pipeline"}


def test_image_models_in_one_file_are_told_by_their_tensors(tmp_path: Path) -> None:
    unet = "model.diffusion_model."
    model_files.checkpoint(tmp_path / "Top.safetensors")
    model_files.checkpoint(tmp_path / "one/whatever.safetensors", f"{unet}double_blocks.0.img_attn.proj.weight")
    model_files.checkpoint(tmp_path / "many/a.safetensors", f"{unet}input_blocks.0.0.weight")
    model_files.checkpoint(tmp_path / "many/b.safetensors", f"{unet}joint_blocks.0.x_block.attn.proj.weight")
    model_files.gguf(tmp_path / "many/more/c.gguf")
    models = scan(tmp_path)
    assert whole(tmp_path) == ["many/a", "many/b", "many/more", "one", "top"]
    assert {model_id: models[model_id].architectures for model_id in ("top", "one", "many/a", "many/b")} == {
        "top": ("sdxl",),
        "one": ("flux",),
        "many/a": ("sd1",),
        "many/b": ("sd3",),
    }
    assert (models["top"].task, models["top"].quantization) == (Task.IMAGE, "F16")
    assert models["top"].path == tmp_path / "Top.safetensors"


def test_weights_without_a_config_are_no_model_wherever_they_lie(tmp_path: Path) -> None:
    model_files.safetensors(tmp_path / "loose.safetensors")
    model_files.safetensors(tmp_path / "folder/loose.safetensors")
    models = scan(tmp_path)
    assert {model_id: model.problem.startswith("config.json is missing") for model_id, model in models.items()} == {
        "folder": True,
        "loose": True,
    }


def test_pickles_are_not_loaded(tmp_path: Path) -> None:
    folder = model_files.snapshot(tmp_path / "old")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert problem(tmp_path).startswith("its weights are PyTorch pickles")


def test_a_broken_snapshot_still_says_what_it_takes_on_disk(tmp_path: Path) -> None:
    folder = model_files.snapshot(tmp_path / "a", shards=3, without_shards=[2])
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert scan(tmp_path)["a"].size_bytes == size > 0


def test_an_adapter_is_not_a_model(tmp_path: Path) -> None:
    folder = model_files.snapshot(tmp_path / "lora")
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    model_files.write_json(folder / "adapter_config.json", {"peft_type": "LORA"})
    assert problem(tmp_path) == "is an adapter (LoRA), not a whole model"


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
