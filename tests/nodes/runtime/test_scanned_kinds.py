"""What a directory holds: each kind of model, whole or broken, and what is none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nodes.runtime.models import ModelFormat, Task
from tests.nodes.runtime.scanning import problem, scan, whole
from tests.support import model_files


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
