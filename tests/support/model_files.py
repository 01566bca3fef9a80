"""Model files for tests: tiny ones that are whole, and a broken neighbour of each kind.

They have the headers of real models and a few bytes of data, so readers and the registry take them for whole; no
engine can compute with them.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

U8, U32, I32, F32, BOOL, STRING, ARRAY, U64 = 0, 4, 5, 6, 7, 8, 9, 10
Pair = tuple[str, int, Any]
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def gguf(
    path: Path,
    architecture: str = "llama",
    *,
    file_type: int | None = 15,
    context_length: int | None = 4096,
    template: str = TEMPLATE,
    vocabulary: int = 8,
    tensors: int = 2,
    extra: Sequence[Pair] = (),
    split: tuple[int, int] | None = None,
    cut: int = 0,
    grow_to: int = 0,
) -> Path:
    """A GGUF file; `cut` bytes are missing at its end, or its data is a hole as far as `grow_to` bytes."""
    pairs: list[Pair] = [("general.architecture", STRING, architecture)] if architecture else []
    if file_type is not None:
        pairs.append(("general.file_type", U32, file_type))
    if context_length is not None:
        pairs.append((f"{architecture}.context_length", U32, context_length))
    pairs += extra
    pairs.append(("tokenizer.ggml.tokens", ARRAY, (STRING, [f"token{number}" for number in range(vocabulary)])))
    pairs.append(("tokenizer.ggml.token_type", ARRAY, (I32, [1] * vocabulary)))
    if template:
        pairs.append(("tokenizer.chat_template", STRING, template))
    if split is not None:
        pairs += [("split.no", U32, split[0]), ("split.count", U32, split[1])]
    header = gguf_header(pairs, [(f"blk.{number}.weight", (32, 2), 0, number * 256) for number in range(tensors)])
    data = b"\0" * (256 * tensors)
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = header + data
    path.write_bytes(whole[: len(whole) - cut])
    if grow_to:
        with path.open("r+b") as file:
            file.truncate(grow_to)
    return path


def gguf_header(pairs: Sequence[Pair], tensors: Sequence[tuple[str, tuple[int, ...], int, int]] = ()) -> bytes:
    """Everything before the data, padded to 32 bytes; a tensor is name, shape, type, offset."""
    out = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs)))
    for key, kind, value in pairs:
        out += _string(key) + struct.pack("<I", kind) + _value(kind, value)
    for name, shape, kind, offset in tensors:
        out += _string(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
        out += struct.pack("<IQ", kind, offset)
    return bytes(out + b"\0" * (-len(out) % 32))


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(kind: int, value: Any) -> bytes:
    if kind == STRING:
        return _string(value)
    if kind == ARRAY:
        inner, items = value
        return struct.pack("<IQ", inner, len(items)) + b"".join(_value(inner, item) for item in items)
    return struct.pack("<" + {U8: "B", U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q"}[kind], value)


def split_gguf(folder: Path, stem: str, count: int, *, without: Iterable[int] = (), **values: Any) -> list[Path]:
    """A GGUF in `count` parts, but for the parts `without` (from 1)."""
    return [
        gguf(folder / f"{stem}-{number:05d}-of-{count:05d}.gguf", split=(number - 1, count), **values)
        for number in range(1, count + 1)
        if number not in set(without)
    ]


def safetensors(
    path: Path, tensors: Mapping[str, Sequence[int]] | None = None, *, dtype: str = "BF16", cut: int = 0
) -> Path:
    """A safetensors file of those names and shapes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape in (tensors or {"lm_head.weight": (2, 2)}).items():
        size = {"BF16": 2, "F16": 2, "F32": 4, "F8_E4M3": 1}[dtype]
        for side in shape:
            size *= side
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = struct.pack("<Q", len(text)) + text + b"\0" * at
    path.write_bytes(whole[: len(whole) - cut])
    return path


def snapshot(
    folder: Path,
    architectures: Any = ("LlamaForCausalLM",),
    *,
    shards: int = 1,
    without_shards: Iterable[int] = (),
    config: Mapping[str, Any] | None = None,
    tokenizer: bool = True,
    template: str = TEMPLATE,
) -> Path:
    """A Hugging Face snapshot in safetensors, in one file or in `shards` with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {"architectures": architectures, "max_position_embeddings": 8192, "torch_dtype": "bfloat16"}
    write_json(folder / "config.json", {**document, **(config or {})})
    if tokenizer:
        write_json(folder / "tokenizer.json", {"version": "1.0"})
        write_json(folder / "tokenizer_config.json", {"chat_template": template} if template else {})
    if shards == 1:
        safetensors(folder / "model.safetensors")
        return folder
    names = {
        f"layer.{number}.weight": f"model-{number:05d}-of-{shards:05d}.safetensors" for number in range(1, shards + 1)
    }
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": names})
    for number, (tensor, name) in enumerate(names.items(), start=1):
        if number not in set(without_shards):
            safetensors(folder / name, {tensor: (2, 2)})
    return folder


def whisper(folder: Path, *, cut: int = 0) -> Path:
    """A speech-to-text model as faster-whisper (CTranslate2) reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    variable = _short("decoder/weight") + struct.pack("<BII", 2, 2, 2) + struct.pack("<BI", 0, 16) + b"\0" * 16
    binary = struct.pack("<I", 6) + _short("WhisperSpec") + struct.pack("<II", 3, 1) + variable + struct.pack("<I", 0)
    (folder / "model.bin").write_bytes(binary[: len(binary) - cut])
    write_json(folder / "config.json", {"alignment_heads": [[0, 0]], "suppress_ids": [1], "lang_ids": [50259]})
    write_json(folder / "tokenizer.json", {"version": "1.0"})
    write_json(folder / "vocabulary.json", ["a", "b"])
    return folder


def _short(text: str) -> bytes:
    """CTranslate2's way to write a name: two bytes of length, the name, a zero."""
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def onnx(path: Path, *, cut: int = 0) -> Path:
    """The outline of an ONNX model: its version, who made it, and a graph."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = b"\x08\x08" + b"\x12\x05tests" + b"\x3a\x80\x02" + b"\0" * 256
    path.write_bytes(whole[: len(whole) - cut])
    return path


def piper(path: Path, *, with_config: bool = True) -> Path:
    """A voice of Piper: `path` is its `.onnx` file, beside it the `.onnx.json`."""
    onnx(path)
    if with_config:
        voice = {
            "audio": {"sample_rate": 22050},
            "num_speakers": 1,
            "phoneme_id_map": {"_": [0]},
            "phoneme_type": "espeak",
        }
        write_json(path.with_name(path.name + ".json"), voice)
    return path


def embedding(folder: Path, *, below: str = "") -> Path:
    """A text embedding model in ONNX; its file may be `below` the folder, as in `onnx/`."""
    onnx(folder / below / "model.onnx")
    write_json(folder / "config.json", {"architectures": ["BertModel"], "max_position_embeddings": 512})
    write_json(folder / "tokenizer.json", {"version": "1.0"})
    return folder


def diffusers(folder: Path) -> Path:
    """An image pipeline in parts."""
    parts = {"unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(
        folder / "model_index.json", {"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.30", **parts}
    )
    for part in parts:
        safetensors(folder / part / "diffusion_pytorch_model.safetensors")
        write_json(folder / part / "config.json", {"_class_name": parts[part][1]})
    return folder


def checkpoint(path: Path, *marks: str, cut: int = 0) -> Path:
    """An image model in one file, as its makers publish it; SDXL unless other `marks` (names of tensors) are given."""
    names = marks or ("model.diffusion_model.input_blocks.0.0.weight", "conditioner.embedders.1.model.ln_final.weight")
    return safetensors(path, dict.fromkeys(names, (2, 2)), dtype="F16", cut=cut)


def write_json(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def broken_neighbours(root: Path) -> dict[str, str]:
    """One model of each kind that must not be served; by its id, words that its reason must have."""
    no_config = snapshot(root / "broken/no-config")
    (no_config / "config.json").unlink()
    snapshot(root / "broken/empty-architectures", [])
    snapshot(root / "broken/unknown-architecture", ["UnknownCustomForCausalLM"])
    malformed = snapshot(root / "broken/malformed-config")
    (malformed / "config.json").write_text("{", encoding="utf-8")
    snapshot(root / "broken/missing-shard", shards=3, without_shards=[2])
    snapshot(root / "broken/no-tokenizer", tokenizer=False)
    safetensors(snapshot(root / "broken/cut-safetensors") / "model.safetensors", cut=1)
    gguf(root / "broken/cut.gguf", cut=1)
    gguf(root / "broken/unknown.gguf", "unknowncustom")
    (root / "broken/empty.gguf").write_bytes(b"")
    (root / "broken/other.gguf").write_bytes(b"PK\3\4" + b"\0" * 100)
    split_gguf(root / "broken/parts", "big", 3, without=[2])
    piper(root / "broken/voice/en.onnx", with_config=False)
    whisper(root / "broken/whisper", cut=4)
    return {
        "broken/no-config": "config.json is missing",
        "broken/empty-architectures": "names no architecture",
        "broken/unknown-architecture": "unknowncustom",
        "broken/malformed-config": "not the JSON",
        "broken/missing-shard": "model-00002-of-00003.safetensors is missing",
        "broken/no-tokenizer": "tokenizer.json is missing",
        "broken/cut-safetensors": "cut short",
        "broken/cut": "cut short",
        "broken/unknown": "unknowncustom",
        "broken/empty": "0 bytes",
        "broken/other": "not a GGUF file",
        "broken/parts": "big-00002-of-00003.gguf is missing",
        "broken/voice": "en.onnx.json is missing",
        "broken/whisper": "cut short",
    }
