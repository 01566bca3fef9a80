"""Sets of safetensors files: whole, or what is wrong with them."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodes.runtime.files.safetensors_header import Weights, read_weights
from tests.support import model_files


def read(folder: Path) -> Weights:
    return read_weights(folder, {path.name for path in folder.iterdir()})


def with_header(path: Path, document: Any, data: bytes = b"") -> Path:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_one_file(tmp_path: Path) -> None:
    model_files.safetensors(tmp_path / "model.safetensors", {"a": (4, 4), "b": (2,)}, dtype="F16")
    found = read(tmp_path)
    assert (found.files, found.dtype, found.tensor_count, found.problem) == (("model.safetensors",), "F16", 2, "")
    assert found.size_bytes == (tmp_path / "model.safetensors").stat().st_size


def test_all_parts_of_an_index(tmp_path: Path) -> None:
    model_files.snapshot(tmp_path, shards=3)
    found = read(tmp_path)
    assert (len(found.files), found.tensor_count, found.problem) == (3, 3, "")


def test_the_missing_part_is_named(tmp_path: Path) -> None:
    model_files.snapshot(tmp_path, shards=3, without_shards=[2])
    assert read(tmp_path).problem == "model-00002-of-00003.safetensors is missing"
    (tmp_path / "model-00003-of-00003.safetensors").unlink()
    assert read(tmp_path).problem == "model-00002-of-00003.safetensors and 1 more is missing"


def test_parts_without_an_index_are_known_by_their_names(tmp_path: Path) -> None:
    model_files.snapshot(tmp_path, shards=2)
    (tmp_path / "model.safetensors.index.json").unlink()
    assert (read(tmp_path).tensor_count, read(tmp_path).problem) == (2, "")
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    assert read(tmp_path).problem == "model-00002-of-00002.safetensors is missing"


def test_several_files_without_an_index_are_ambiguous(tmp_path: Path) -> None:
    model_files.safetensors(tmp_path / "one.safetensors")
    model_files.safetensors(tmp_path / "two.safetensors")
    assert "cannot be told" in read(tmp_path).problem
    model_files.safetensors(tmp_path / "model.safetensors")
    assert read(tmp_path).files == ("model.safetensors",)


def test_a_part_that_lacks_a_tensor_of_the_index(tmp_path: Path) -> None:
    model_files.snapshot(tmp_path, shards=2)
    model_files.safetensors(tmp_path / "model-00002-of-00002.safetensors", {"other": (2,)})
    expected = "model-00002-of-00002.safetensors lacks the tensor layer.2.weight that the index has it hold"
    assert read(tmp_path).problem == expected


@pytest.mark.parametrize("index", [b"{", b"[]", b'{"weight_map": {}}', b'{"weight_map": {"a": 1}}', b""])
def test_a_broken_index(tmp_path: Path, index: bytes) -> None:
    model_files.safetensors(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors.index.json").write_bytes(index)
    assert read(tmp_path).problem.startswith("model.safetensors.index.json ")


@pytest.mark.parametrize("name", ["../other.safetensors", "/etc/passwd", "a\\b", "a\0b"])
def test_an_index_names_no_file_outside_its_folder(tmp_path: Path, name: str) -> None:
    model_files.write_json(tmp_path / "model.safetensors.index.json", {"weight_map": {"a": name}})
    assert read(tmp_path).problem == "model.safetensors.index.json names a file outside its folder"


def test_experts_are_counted_by_the_names_of_their_tensors(tmp_path: Path) -> None:
    tensors = {f"model.layers.0.mlp.experts.{number}.up.weight": (2,) for number in range(8)}
    model_files.safetensors(tmp_path / "model.safetensors", tensors)
    assert read(tmp_path).expert_count == 8


@pytest.mark.parametrize("cut", [1, 7, 8, 9, 60, 120])
def test_a_file_cut_short(tmp_path: Path, cut: int) -> None:
    model_files.safetensors(tmp_path / "model.safetensors", cut=cut)
    assert "model.safetensors is cut short" in read(tmp_path).problem


def test_a_file_of_zero_bytes(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    assert read(tmp_path).problem == "model.safetensors is empty (0 bytes)"


def test_a_pointer_of_git_lfs_says_how_to_fetch_the_file(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert "git lfs pull" in read(tmp_path).problem


def test_a_pipe_is_no_file_and_opening_it_does_not_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.safetensors")
    assert read(tmp_path).problem == "model.safetensors is not an ordinary file"


@pytest.mark.parametrize(
    "header",
    [
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}},
        {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 5]}},
        {"a": {"dtype": "F32", "shape": [1]}},
        {"a": 1},
        [],
        {},
        b"{",
        b"\xff\xff",
        b'{"a":' * 50_000,
    ],
)
def test_headers_that_cannot_be(tmp_path: Path, header: Any) -> None:
    with_header(tmp_path / "model.safetensors", header, b"\0" * 4)
    assert read(tmp_path).problem.startswith("model.safetensors ")


def test_bytes_after_the_last_tensor(tmp_path: Path) -> None:
    path = model_files.safetensors(tmp_path / "model.safetensors")
    path.write_bytes(path.read_bytes() + b"more")
    assert read(tmp_path).problem == "model.safetensors cannot be right: 4 bytes after its last tensor"


def test_a_length_beyond_all_reason_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", 2**63) + b"{}")
    assert "not a safetensors file" in read(tmp_path).problem


def test_a_dtype_newer_than_this_code_is_taken_at_its_word(tmp_path: Path) -> None:
    header = {"a": {"dtype": "F2_NEW", "shape": [3], "data_offsets": [0, 4]}}
    with_header(tmp_path / "model.safetensors", header, b"\0" * 4)
    assert (read(tmp_path).dtype, read(tmp_path).problem) == ("F2_NEW", "")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200), header=st.booleans())
def test_no_bytes_make_the_reader_raise(data: bytes, header: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with_header(path, data) if header else path.write_bytes(data)
    assert read(tmp_path).problem


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 60), value=st.integers(0, 255))
def test_one_changed_byte_never_makes_the_reader_raise(at: int, value: int, tmp_path: Path) -> None:
    path = model_files.safetensors(tmp_path / "model.safetensors")
    data = bytearray(path.read_bytes())
    data[at] = value
    path.write_bytes(data)
    assert isinstance(read(tmp_path), Weights)
