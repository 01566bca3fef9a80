"""The models that folders are: Hugging Face snapshots in safetensors or ONNX, pipelines of diffusers, CTranslate2."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from nodes.runtime.files.architectures import families, normalise
from nodes.runtime.files.ctranslate2 import MODEL, read_binary
from nodes.runtime.files.hf_config import (
    CONFIG,
    MAX_CONFIG,
    HfConfig,
    has_chat_template,
    missing_tokenizer,
    read_config,
)
from nodes.runtime.files.ids import id_of
from nodes.runtime.files.onnx_outline import onnx_problem
from nodes.runtime.files.reading import Malformed, parse_json, read_up_to, shown
from nodes.runtime.files.safetensors_header import Weights, read_weights
from nodes.runtime.files.tree import File, Folder
from nodes.runtime.models import ModelFile, ModelFormat, Task

PIPELINE: Final = "model_index.json"
ADAPTER: Final = "adapter_config.json"
WEIGHTS: Final = ".safetensors"
ONNX_FOLDER: Final = "onnx"
ONNX_MODEL: Final = "model.onnx"
PICKLES: Final = (".bin", ".pt", ".pth", ".ckpt")
NO_WEIGHTS: Final = "has no weights: no .safetensors, .gguf or .onnx file"
ONLY_PICKLES: Final = (
    "its weights are PyTorch pickles, which can run code when they are loaded: fetch them as .safetensors"
)
# Beside the encoders of sentence-transformers.
_EMBEDDING_MARKS: Final = ("modules.json", "config_sentence_transformers.json")
_VARIANTS: Final = (".fp16.", ".bf16.", ".non_ema.")
_NEEDS_TOKENIZER: Final = frozenset({Task.TEXT, Task.EMBEDDING, Task.RERANK})


def safetensors_model(folder: Folder) -> ModelFile:
    """The snapshot whose weights are the .safetensors files of this folder."""
    names = frozenset(folder.files)
    config = read_config(folder.path)
    weights = read_weights(folder.path, names)
    present = [name for name in weights.files or names if name in names and name.endswith(WEIGHTS)]
    task = _task(config, folder)
    adapter = "is an adapter (LoRA), not a whole model" if ADAPTER in names else ""
    return replace(
        _folder_model(folder, ModelFormat.SAFETENSORS, config, task),
        size_bytes=sum(folder.files[name].size for name in present),
        quantization=config.quantization or weights.dtype or config.dtype,
        tensor_count=weights.tensor_count or None,
        expert_count=config.expert_count or weights.expert_count,
        problem=adapter or config.problem or weights.problem or _no_tokenizer(task, names) or _bad_name(folder),
    )


def checkpoint_models(folder: Folder) -> list[ModelFile]:
    """Image models in the layout of their makers: all in one .safetensors file, without a config.json.

    One that has the folder to itself has the folder's path as its id; any other the path of its file.
    """
    names = sorted(name for name in folder.files if name.endswith(WEIGHTS))
    read = {name: read_weights(folder.path, {name}) for name in names}
    painters = {name: weights for name, weights in read.items() if weights.painter}
    alone = len(names) == 1 and not folder.is_top
    return [_checkpoint(folder, name, weights, alone=alone) for name, weights in painters.items()]


def _checkpoint(folder: Folder, name: str, weights: Weights, *, alone: bool) -> ModelFile:
    file = folder.files[name]
    model_id, bad_name = id_of(folder.relative if alone else folder.below(name.removesuffix(WEIGHTS)))
    return ModelFile(
        id=model_id,
        path=file.path,
        format=ModelFormat.SAFETENSORS,
        architectures=families([weights.painter]),
        declared=(weights.painter,),
        size_bytes=weights.size_bytes,
        quantization=weights.dtype,
        tensor_count=weights.tensor_count,
        task=Task.IMAGE,
        files=(file.path,),
        problem=bad_name,
        modified=file.modified_ns / 1e9,
    )


def onnx_model(folder: Folder, home: Folder) -> ModelFile:
    """The encoder whose graph is in `folder`, which is `home` (with its config.json) or `onnx/` below that.

    It has the id of its home, or its own where the home has another model.
    """
    names = [name for name in sorted(folder.files) if name.endswith(".onnx")]
    config = read_config(home.path)
    name = ONNX_MODEL if ONNX_MODEL in names else names[0]
    problem = config.problem
    if not problem and name != ONNX_MODEL and len(names) > 1:
        problem = f"has several .onnx files and no {ONNX_MODEL}: which of them is the model cannot be told"
    broken = onnx_problem(folder.files[name].path)
    problem = problem or (f"{shown(name)} {broken}" if broken else "")
    problem = problem or _no_tokenizer(Task.EMBEDDING, frozenset(home.files) | frozenset(folder.files))
    base = folder if _has(home, ".safetensors") else home
    return replace(
        _folder_model(base, ModelFormat.ONNX, config, Task.EMBEDDING),
        path=folder.files[name].path,
        size_bytes=sum(file.size for part, file in folder.files.items() if part.startswith(name)),
        quantization="",
        problem=problem or _bad_name(base),
    )


def ctranslate2_model(folder: Folder) -> ModelFile:
    """A folder of CTranslate2: Whisper for faster-whisper, or a kind that no engine here loads."""
    binary = read_binary(folder.files[MODEL].path)
    hears = binary.specification == "WhisperSpec"
    problem = f"{MODEL} {binary.problem}" if binary.problem else ""
    if not problem and not any(name.startswith("vocabulary.") or name == "tokenizer.json" for name in folder.files):
        problem = "vocabulary.json is missing"
    model = _folder_model(folder, ModelFormat.CTRANSLATE2, HfConfig(), Task.SPEECH_TO_TEXT if hears else Task.TEXT)
    return replace(
        model,
        architectures=families([binary.specification.removesuffix("Spec")]),
        declared=(binary.specification,) if binary.specification else (),
        size_bytes=folder.files[MODEL].size,
        tensor_count=binary.variables or None,
        problem=problem or _bad_name(folder),
    )


def pipeline_model(folder: Folder) -> ModelFile:
    """A pipeline of diffusers: `model_index.json`, and a folder for each part that it names."""
    name, problem, size, tensors = "", "", 0, 0
    try:
        name, parts = _read_pipeline(folder)
        for part in parts:
            weights = _part_weights(folder, part)
            if weights.problem:
                raise Malformed(f"{shown(part)}: {weights.problem}")
            size += weights.size_bytes
            tensors += weights.tensor_count
        if not tensors:
            raise Malformed("none of its parts has weights")
    except Malformed as error:
        problem = str(error)
    return replace(
        _folder_model(folder, ModelFormat.DIFFUSERS, HfConfig(), Task.IMAGE),
        architectures=families([name]),
        declared=(name,) if name else (),
        size_bytes=size,
        tensor_count=tensors or None,
        problem=problem or _bad_name(folder),
    )


def weightless_model(folder: Folder) -> ModelFile:
    """A folder that says what its model is, and has nothing to load."""
    pickled = any(name.endswith(PICKLES) for name in folder.files)
    config = read_config(folder.path)
    model = _folder_model(folder, ModelFormat.UNKNOWN, config, _task(config, folder))
    return replace(model, problem=ONLY_PICKLES if pickled else NO_WEIGHTS)


def _folder_model(folder: Folder, form: ModelFormat, config: HfConfig, task: Task) -> ModelFile:
    relative = folder.relative or folder.path.name  # the models directory may itself be a model
    files = tuple(_own_files(folder))
    return ModelFile(
        id=id_of(relative)[0],
        path=folder.path,
        format=form,
        architectures=families(config.architectures),
        declared=config.architectures,
        context_length=config.context_length,
        has_chat_template=has_chat_template(folder.path, folder.files),
        task=task,
        files=tuple(sorted(file.path for file in files)),
        modified=max((file.modified_ns for file in files), default=0) / 1e9,
    )


def _own_files(folder: Folder) -> Iterable[File]:
    """What belongs to the model of a folder: all in it and below it, but for GGUF files, models themselves."""
    return (file for file in folder.all_files() if not file.path.name.lower().endswith(".gguf"))


def _task(config: HfConfig, folder: Folder) -> Task:
    if any(mark in folder.files for mark in _EMBEDDING_MARKS):
        return Task.EMBEDDING
    name = config.architectures[0] if config.architectures else ""
    if name.startswith("Whisper"):
        return Task.SPEECH_TO_TEXT
    if name.endswith(("ForSequenceClassification", "ForRanking")):
        return Task.RERANK
    if name.endswith(("Model", "ForMaskedLM")) and not name.endswith(("LMHeadModel", "ChatModel", "ChatGLMModel")):
        return Task.EMBEDDING
    return Task.TEXT


def _no_tokenizer(task: Task, names: frozenset[str]) -> str:
    missing = missing_tokenizer(names) if task in _NEEDS_TOKENIZER else ""
    return f"{missing} is missing" if missing else ""


def _bad_name(folder: Folder) -> str:
    return id_of(folder.relative or folder.path.name)[1]


def _has(folder: Folder, suffix: str) -> bool:
    return any(name.endswith(suffix) for name in folder.files)


def _read_pipeline(folder: Folder) -> tuple[str, list[str]]:
    """The pipeline's class, and the names of the parts that have weights or files of their own."""
    try:
        document: Any = parse_json(read_up_to(folder.path / PIPELINE, MAX_CONFIG))
    except Malformed as problem:
        raise Malformed(f"{PIPELINE} {problem}") from problem
    name = document.get("_class_name") if isinstance(document, dict) else None
    if not isinstance(name, str) or not normalise(name):
        raise Malformed(f"{PIPELINE} names no pipeline")
    parts = [part for part, kind in document.items() if isinstance(kind, list) and kind[:1] not in ([None], [])]
    missing = next((part for part in parts if part not in folder.folders), None)
    if missing is not None:
        raise Malformed(f"its part {shown(missing)} is missing")
    return name, parts


def _part_weights(folder: Folder, part: str) -> Weights:
    """The weights of one part; a tokenizer or a scheduler has none, and none is what is wrong with it."""
    below = folder.folders[part]
    names = [name for name in below.files if ".safetensors" in name]
    plain = [name for name in names if not any(variant in name for variant in _VARIANTS)]
    if names:
        return read_weights(below.path, plain or names)
    if CONFIG in below.files:
        pickled = any(name.endswith(PICKLES) for name in below.files)
        return Weights(problem=ONLY_PICKLES if pickled else NO_WEIGHTS)
    return Weights()
