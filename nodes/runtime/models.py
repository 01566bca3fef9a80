"""What a model on disk is, in the words that engines, registry and API share."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class ModelFormat(StrEnum):
    """How the weights are stored (SPEC-3fc2c1e4, SPEC-d7feaa2c): this decides which engines can be asked at all."""

    GGUF = "gguf"
    SAFETENSORS = "safetensors"
    ONNX = "onnx"
    CTRANSLATE2 = "ctranslate2"
    PIPER = "piper"
    DIFFUSERS = "diffusers"
    UNKNOWN = "unknown"  # a folder that cannot be read, weights in a format that nothing here loads


class Task(StrEnum):
    """What a model is for; the same words as `nodes.capabilities`."""

    TEXT = "text"
    EMBEDDING = "embedding"
    RERANK = "rerank"
    SPEECH_TO_TEXT = "speech-to-text"
    TEXT_TO_SPEECH = "text-to-speech"
    IMAGE = "image"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One model below the models directory: a file, a set of files, or a folder.

    `path` is what an engine is given: the folder of a snapshot, the `.gguf` or `.onnx` file, the first part of a
    split GGUF. `files` are all of its files, which is what deleting the model deletes. A model with a `problem` is
    listed with it, and never served. Sizes are bytes, `modified` is seconds since the epoch (the newest of its files).
    """

    id: str
    path: Path
    format: ModelFormat
    architectures: tuple[str, ...] = ()  # families, each once: files/architectures.py
    size_bytes: int = 0
    quantization: str = ""  # Q4_K_M, F16, bf16 …; empty where the files do not say
    context_length: int | None = None  # tokens
    has_chat_template: bool = False
    tensor_count: int | None = None
    expert_count: int | None = None
    task: Task = Task.TEXT
    projector: Path | None = None  # what lets a GGUF see: the mmproj file beside it
    files: tuple[Path, ...] = ()
    problem: str = ""  # why this is not a whole model, in plain words
    modified: float = 0.0
    declared: tuple[str, ...] = ()  # as the files have them: "Qwen2ForCausalLM", "gpt-oss"
