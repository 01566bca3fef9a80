"""What the JSON files of a Hugging Face snapshot say of its model: `config.json` and the tokenizer's."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from nodes.runtime.files.architectures import normalise
from nodes.runtime.files.reading import MIB, Malformed, parse_json, read_up_to

CONFIG: Final = "config.json"
TOKENIZER_CONFIG: Final = "tokenizer_config.json"
MAX_CONFIG: Final = 8 * MIB
MAX_TOKENIZER_CONFIG: Final = 32 * MIB
TEMPLATES: Final = ("chat_template.jinja", "chat_template.json")

# Any of these is a tokenizer that engines read; the first is the one to ask for.
TOKENIZERS: Final = (
    "tokenizer.json",
    "tokenizer.model",
    "tekken.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "vocab.txt",
)
_CONTEXT_KEYS: Final = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "n_ctx")
_EXPERT_KEYS: Final = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_DTYPES: Final = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
_LARGEST: Final = 2**40  # a count beyond this is no count


class _Template(msgspec.Struct):
    chat_template: Any = None


@dataclass(frozen=True, slots=True)
class HfConfig:
    """The facts of one `config.json`. Where there is a `problem` it says why the model cannot be known from it."""

    architectures: tuple[str, ...] = ()  # as they stand there: "Qwen2ForCausalLM"
    model_type: str = ""
    context_length: int | None = None
    expert_count: int | None = None
    quantization: str = ""  # "gptq-4bit", "fp8", "mlx-4bit"
    dtype: str = ""  # of `dtype` or `torch_dtype`, as safetensors call it: "BF16"
    keys: frozenset[str] = frozenset()
    problem: str = ""


def read_config(folder: Path) -> HfConfig:
    """The `config.json` of a folder; never raises.

    Names that are no strings, or have no letter, are skipped; doubles collapse; none at all is a problem.
    """
    path = folder / CONFIG
    try:
        if not path.exists():
            raise Malformed("is missing")
        document = parse_json(read_up_to(path, MAX_CONFIG))
        if not isinstance(document, dict):
            raise Malformed("is not a JSON object")
    except Malformed as problem:
        return HfConfig(problem=f"{CONFIG} {problem}")
    except OSError:
        return HfConfig(problem=f"{CONFIG} cannot be read")
    names = document.get("architectures")
    found = [name for name in names if isinstance(name, str) and normalise(name)] if isinstance(names, list) else []
    return HfConfig(
        architectures=tuple(dict.fromkeys(found)),
        model_type=_text(document.get("model_type")),
        context_length=_first_count(document, _CONTEXT_KEYS),
        expert_count=_first_count(document, _EXPERT_KEYS),
        quantization=_quantization(document.get("quantization_config")) or _mlx(document.get("quantization")),
        dtype=_DTYPES.get(_text(document.get("dtype")) or _text(document.get("torch_dtype")), ""),
        keys=frozenset(document),
        problem="" if found else f"{CONFIG} names no architecture",
    )


def has_chat_template(folder: Path, names: Collection[str]) -> bool:
    """Whether the snapshot says how a conversation is written for it."""
    if any(name in names for name in TEMPLATES):
        return True
    if TOKENIZER_CONFIG not in names:
        return False
    try:
        found: _Template = parse_json(read_up_to(folder / TOKENIZER_CONFIG, MAX_TOKENIZER_CONFIG), _Template)
    except Malformed:
        return False
    return bool(found.chat_template)


def missing_tokenizer(names: Collection[str]) -> str:
    """The name of the file to fetch where the folder has no tokenizer of any kind; empty where it has."""
    present = any(name in names for name in TOKENIZERS) or any(name.endswith(".tiktoken") for name in names)
    return "" if present else TOKENIZERS[0]


def _text(value: Any) -> str:
    return value.strip().lower() if isinstance(value, str) else ""


def _sections(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The document, and where models that see or hear keep what is said of their text part."""
    yield document
    for name in ("text_config", "llm_config", "language_config"):
        if isinstance(section := document.get(name), dict):
            yield section


def _first_count(document: dict[str, Any], keys: tuple[str, ...]) -> int | None:
    for section in _sections(document):
        for key in keys:
            value = section.get(key)
            if isinstance(value, int) and not isinstance(value, bool) and 0 < value < _LARGEST:
                return value
    return None


def _mlx(value: Any) -> str:
    """MLX says how it has quantised, and not that it was MLX."""
    return (
        _quantization({"quant_method": "mlx", "bits": value["bits"]})
        if isinstance(value, dict) and "bits" in value
        else ""
    )


def _quantization(value: Any) -> str:
    if not isinstance(value, dict):
        return ""
    method, bits = _text(value.get("quant_method")), value.get("bits")
    if method and isinstance(bits, int) and not isinstance(bits, bool) and 0 < bits <= 32:
        return f"{method}-{bits}bit"
    return method
