"""No directory makes a scan raise, whatever is in its files; and the readers of the smaller formats never do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodes.runtime.files.ctranslate2 import read_binary
from nodes.runtime.files.ids import id_of
from nodes.runtime.files.onnx_outline import onnx_problem
from nodes.runtime.files.scan import Scanner
from nodes.runtime.models import ModelFile
from tests.support import model_files

NAMES = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "model_index.json",
    "adapter_config.json",
    "modules.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-00001-of-00002.safetensors",
    "model-00001-of-99999.safetensors",
    "a.gguf",
    "A.GGUF",
    "b-00001-of-00002.gguf",
    "b-00002-of-00002.gguf",
    "c-00000-of-00000.gguf",
    "mmproj.gguf",
    "model.bin",
    "vocabulary.txt",
    "model.onnx",
    "v.onnx.json",
    "v.onnx",
    "pytorch_model.bin",
]
FOLDERS = ["", "org", "org/model", "org/model/onnx", "models--a--b/snapshots/x", "models--a--b/refs", "unet"]
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 9) | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["architectures", "weight_map", "_class_name", "unet", "audio", "chat_template", "a"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)
contents = st.one_of(
    st.binary(max_size=60),
    json_values.map(lambda value: json.dumps(value).encode()),
    st.sampled_from(["gguf", "safetensors", "onnx"]),
)


def put(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if content == "gguf":
        model_files.gguf(path)
    elif content == "safetensors":
        model_files.safetensors(path)
    elif content == "onnx":
        model_files.onnx(path)
    elif isinstance(content, bytes):
        path.write_bytes(content)


def check(model: ModelFile, root: Path) -> None:
    assert id_of(model.id) == (model.id, "")
    assert model.path.is_relative_to(root)
    assert model.problem.isprintable()
    assert all(path.is_relative_to(root) for path in model.files)
    assert model.problem or (model.architectures and model.files and model.size_bytes)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=st.dictionaries(st.tuples(st.sampled_from(FOLDERS), st.sampled_from(NAMES)), contents, max_size=8))
def test_no_directory_makes_a_scan_raise(files: dict[tuple[str, str], bytes | str], tmp_path: Path) -> None:
    root = tmp_path / "models"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for (folder, name), content in files.items():
        put(root / folder / name, content)
    scanner = Scanner(root, settle=0)
    models = scanner.scan()
    for model in models:
        check(model, root)
    whole = [model.id for model in models if not model.problem]
    assert len(set(whole)) == len(whole)
    assert scanner.scan() == models == Scanner(root, settle=0).scan()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200), begins_well=st.booleans())
def test_no_bytes_make_the_smaller_readers_raise(data: bytes, begins_well: bool, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\x06\0\0\0\x0c\0WhisperSpec\0\3\0\0\0" + data if begins_well else data)
    assert isinstance(read_binary(path).problem, str)
    path.write_bytes(b"\x08\x08\x3a" + data if begins_well else data)
    assert isinstance(onnx_problem(path), str)


@given(st.text(st.characters(blacklist_characters="\0")))
def test_any_path_has_an_id_that_can_be_shown(relative: str) -> None:
    model_id, problem = id_of(relative)
    assert id_of(model_id) == (model_id, "")
    assert problem or model_id == relative.lower() or "models--" in relative


@pytest.mark.parametrize(
    ("relative", "expected"),
    [
        ("Org/Name", "org/name"),
        ("models--Org--Name/snapshots/0a1b", "org/name"),
        ("cache/models--Org--Name/snapshots/0a1b/onnx", "cache/org/name/onnx"),
        ("models--Solo/snapshots/x", "solo"),
    ],
)
def test_ids(relative: str, expected: str) -> None:
    assert id_of(relative) == (expected, "")
