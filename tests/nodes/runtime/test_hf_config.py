"""config.json, and the tokenizer's files beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.runtime.files.hf_config import HfConfig, has_chat_template, missing_tokenizer, read_config


def config(folder: Path, document: Any) -> HfConfig:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    (folder / "config.json").write_bytes(text)
    return read_config(folder)


# The six cases of SPEC-93536000, task 7.8.


def test_one_architecture(tmp_path: Path) -> None:
    found = config(tmp_path, {"architectures": ["MistralForCausalLM"]})
    assert (found.architectures, found.problem) == (("MistralForCausalLM",), "")


def test_several_architectures_in_their_order_each_once(tmp_path: Path) -> None:
    names = ["LlamaForCausalLM", "MistralForCausalLM", "LlamaForCausalLM"]
    assert config(tmp_path, {"architectures": names}).architectures == ("LlamaForCausalLM", "MistralForCausalLM")


def test_a_missing_file(tmp_path: Path) -> None:
    assert read_config(tmp_path) == HfConfig(problem="config.json is missing")


@pytest.mark.parametrize(
    "document", [{"architectures": []}, {}, {"architectures": None}, {"architectures": "LlamaForCausalLM"}]
)
def test_no_architecture_or_none_in_a_list(tmp_path: Path, document: Any) -> None:
    found = config(tmp_path, document)
    assert (found.architectures, found.problem) == ((), "config.json names no architecture")


@pytest.mark.parametrize(
    "document",
    [b"{", b"", b"\xff\xfe{}", b'{"architectures": ["L', b"null", b"[1]", b"[" * 100_000, b'{"a": 1e999999}x'],
)
def test_a_malformed_file(tmp_path: Path, document: bytes) -> None:
    found = config(tmp_path, document)
    assert found.architectures == ()
    assert found.problem.startswith("config.json is ")


def test_names_that_are_no_strings_are_skipped(tmp_path: Path) -> None:
    names: list[Any] = [1, None, "LlamaForCausalLM", ["x"], {}, True, "", "  "]
    assert config(tmp_path, {"architectures": names}).architectures == ("LlamaForCausalLM",)


@pytest.mark.parametrize(
    ("document", "tokens"),
    [
        ({"max_position_embeddings": 8192}, 8192),
        ({"n_positions": 1024}, 1024),
        ({"text_config": {"max_position_embeddings": 32768}}, 32768),
        ({"max_position_embeddings": True}, None),
        ({"max_position_embeddings": "8192"}, None),
        ({"max_position_embeddings": -1}, None),
        ({"max_position_embeddings": 10**30}, None),
        ({"text_config": [1]}, None),
    ],
)
def test_the_context_length(tmp_path: Path, document: Any, tokens: int | None) -> None:
    assert config(tmp_path, document).context_length == tokens


@pytest.mark.parametrize(
    ("document", "quantization"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq-4bit"),
        ({"quantization_config": {"quant_method": "fp8"}}, "fp8"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "mlx-4bit"),
        ({"quantization_config": {"quant_method": 4, "bits": "x"}}, ""),
        ({"quantization_config": "gptq", "quantization": "4"}, ""),
    ],
)
def test_the_quantization(tmp_path: Path, document: Any, quantization: str) -> None:
    assert config(tmp_path, document).quantization == quantization


def test_experts_are_counted_under_any_of_their_names(tmp_path: Path) -> None:
    assert config(tmp_path, {"num_local_experts": 8}).expert_count == 8
    assert config(tmp_path, {"n_routed_experts": 256}).expert_count == 256


def test_a_file_larger_than_any_config_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(10**12)
    assert "more than such a file ever has" in read_config(tmp_path).problem


def test_a_folder_in_its_place_is_no_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    assert read_config(tmp_path).problem == "config.json is not an ordinary file"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"tokenizer_config.json": '{"chat_template": "{{ x }}"}'}, True),
        ({"tokenizer_config.json": '{"chat_template": [{"name": "default", "template": "x"}]}'}, True),
        ({"tokenizer_config.json": "{}"}, False),
        ({"tokenizer_config.json": "{"}, False),
        ({"chat_template.jinja": "{{ x }}"}, True),
        ({}, False),
    ],
)
def test_the_chat_template(tmp_path: Path, files: dict[str, str], expected: bool) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert has_chat_template(tmp_path, files) is expected


def test_any_kind_of_tokenizer_is_one() -> None:
    assert missing_tokenizer({"config.json"}) == "tokenizer.json"
    for name in ("tokenizer.json", "tokenizer.model", "vocab.txt", "qwen.tiktoken"):
        assert missing_tokenizer({name}) == ""


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)


READ = (
    "architectures",
    "text_config",
    "quantization_config",
    "quantization",
    "max_position_embeddings",
    "num_experts",
    "model_type",
    "torch_dtype",
)


@given(document=st.fixed_dictionaries({}, optional=dict.fromkeys(READ, json_values)))
def test_nothing_in_a_config_makes_the_reader_raise(
    document: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    found = config(tmp_path_factory.getbasetemp(), document)
    assert bool(found.problem) is (not found.architectures)
