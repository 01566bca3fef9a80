"""Which files of a repository make the model."""

from __future__ import annotations

import pytest

from nodes.runtime.fetching.choosing import choose, quantization_of
from nodes.runtime.fetching.failures import BadWish

BASE = ["README.md", ".gitattributes", "config.json", "tokenizer.json", "tokenizer_config.json"]
SAFETENSORS = [*BASE, "model.safetensors", "original/consolidated.00.pth", "onnx/model.onnx"]
SHARDS = [*BASE, "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
SPLIT = ["big-Q4_K_M-00001-of-00002.gguf", "big-Q4_K_M-00002-of-00002.gguf", "big-Q8_0.gguf"]


@pytest.mark.parametrize(
    ("paths", "chosen"),
    [
        (["README.md", "a.gguf"], {"a.gguf"}),
        (["a.gguf", "mmproj-F32.gguf", "mmproj-F16.gguf"], {"a.gguf", "mmproj-F16.gguf"}),
        (SAFETENSORS, {"config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"}),
        ([*SHARDS, "model.safetensors.index.json"], {*SHARDS, "model.safetensors.index.json"} - set(BASE[:2])),
        (["model.bin", "config.json", "vocabulary.txt", "README.md"], {"model.bin", "config.json", "vocabulary.txt"}),
        (["en_US.onnx", "en_US.onnx.json", "MODEL_CARD"], {"en_US.onnx", "en_US.onnx.json"}),
        (
            ["model_index.json", "unet/config.json", "unet/a.safetensors", "unet/a.fp16.safetensors", "sd.ckpt"],
            {"model_index.json", "unet/config.json", "unet/a.safetensors"},
        ),
    ],
)
def test_the_files_of_one_model_are_chosen(paths: list[str], chosen: set[str]) -> None:
    assert set(choose(paths)) == chosen


def test_all_parts_of_a_split_file_belong_together() -> None:
    assert set(choose(SPLIT, quantization="q4-k-m")) == set(SPLIT[:2])
    assert set(choose(SPLIT, filename=SPLIT[1])) == set(SPLIT[:2])


@pytest.mark.parametrize(
    ("paths", "asked", "says"),
    [
        (SPLIT, {}, "specify a filename or a quantization: Q4_K_M, Q8_0"),
        (SPLIT, {"quantization": "Q2_K"}, "has no Q2_K: there is Q4_K_M, Q8_0"),
        (SPLIT[1:], {"quantization": "Q4_K_M"}, "1 of the 2 parts"),
        (SHARDS, {}, "no index: specify a filename"),
        (["model.safetensors", "tokenizer.json"], {}, "no config.json"),
        (["model.safetensors", "config.json"], {}, "no tokenizer.json"),
        (["README.md"], {}, "no model in a form that is known"),
        ([], {}, "no model in a form that is known"),
        (["mmproj-F16.gguf"], {}, "nothing but a projector"),
        (["a.gguf"], {"filename": "b.gguf"}, "no file 'b.gguf'"),
        (SAFETENSORS, {"quantization": "Q4_0"}, "no GGUF file"),
        (["a.onnx", "b.onnx"], {}, "several ONNX files"),
    ],
)
def test_a_choice_that_is_not_clear_is_asked_back(paths: list[str], asked: dict[str, str], says: str) -> None:
    with pytest.raises(BadWish, match=says):
        choose(paths, **asked)


@pytest.mark.parametrize(
    ("name", "quantization"),
    [
        ("SmolLM2-135M-Instruct-Q4_K_M.gguf", "Q4_K_M"),
        ("gpt-oss-20b-MXFP4.gguf", "MXFP4"),
        ("model.IQ2_XXS.gguf", "IQ2_XXS"),
        ("q8_0/model-bf16.gguf", "BF16"),
        ("qwen3-4b.gguf", ""),
    ],
)
def test_the_quantization_is_read_from_the_name(name: str, quantization: str) -> None:
    assert quantization_of(name) == quantization
