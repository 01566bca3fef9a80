"""What a set of safetensors files says in its headers: whether it is whole, and what is in it.

A file is eight bytes of length, that much JSON, then the data, with neither gap nor rest
(https://github.com/huggingface/safetensors#format). A model of several files has an index that names the file of
each tensor.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Final

import msgspec

from nodes.runtime.files.reading import MIB, Malformed, opened, parse_json, pread_all, read_up_to, shown

MAX_HEADER: Final = 32 * MIB  # the largest models in use have 9 MiB of index and less than 1 MiB of header
_LENGTH: Final = struct.Struct("<Q")
_PART: Final = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors\Z")
_EXPERT: Final = re.compile(r"\.experts\.(\d+)\.")
SINGLE: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"

# In this order: what comes later has tensors that earlier ones have too. As stable-diffusion.cpp tells them apart.
# The prefix says that the text encoders and the decoder are in the file too; a network alone, without it, is no model.
_UNET: Final = "model.diffusion_model."
_PAINTERS: Final = (
    ("flux", (f"{_UNET}double_blocks.0.img_attn.proj.weight",)),
    ("sd3", (f"{_UNET}joint_blocks.0.x_block.attn.proj.weight",)),
    ("sdxl", ("conditioner.embedders.1.model.ln_final.weight", f"{_UNET}label_emb.0.0.weight")),
    ("sd2", ("cond_stage_model.model.ln_final.weight",)),
    ("sd1", (f"{_UNET}input_blocks.0.0.weight",)),
)

# Bits of one value; the names are the format's own.
DTYPE_BITS: Final = {
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "U16": 16,
    "I16": 16,
    "F16": 16,
    "BF16": 16,
    "U32": 32,
    "I32": 32,
    "F32": 32,
    "U64": 64,
    "I64": 64,
    "F64": 64,
    "C64": 64,
}


class _Tensor(msgspec.Struct):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


@dataclass(frozen=True, slots=True)
class Weights:
    """The facts of one model's safetensors. Where there is a `problem` it says why they are not whole."""

    files: tuple[str, ...] = ()
    dtype: str = ""  # of most of the data
    tensor_count: int = 0
    expert_count: int | None = None
    size_bytes: int = 0
    painter: str = ""  # the family of a whole image model in one file, "sdxl"; empty for everything else
    problem: str = ""


def read_weights(folder: Path, names: Collection[str]) -> Weights:
    """The model that the files `names` of `folder` are; never raises."""
    try:
        chosen, index = choose(folder, names)
    except Malformed as problem:
        return Weights(problem=str(problem))
    dtypes: Counter[str] = Counter()
    tensors: set[str] = set()
    size = 0
    try:
        for name in chosen:
            found, length = _read_file(folder / name, name)
            size += length
            tensors.update(found)
            for tensor in found.values():
                dtypes[tensor.dtype] += tensor.data_offsets[1] - tensor.data_offsets[0]
        _check_index(index, tensors)
        if not tensors:
            raise Malformed(f"{shown(chosen[0])} holds no tensors")
    except Malformed as problem:
        return Weights(files=chosen, size_bytes=size, problem=str(problem))
    return Weights(
        files=chosen,
        dtype=dtypes.most_common(1)[0][0] if dtypes else "",
        tensor_count=len(tensors),
        expert_count=_experts(tensors),
        size_bytes=size,
        painter=_painter(tensors),
    )


def choose(folder: Path, names: Collection[str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Which of the files are the model, and the index where there is one: tensor → file (SPEC-2c0e5a9b).

    Raises:
        Malformed: one is missing, or which of them are the model cannot be told.
    """
    indexes = sorted(name for name in names if name.endswith(".safetensors.index.json"))
    if indexes:
        index = _read_index(folder, INDEX if INDEX in indexes else indexes[0])
        wanted = sorted(set(index.values()))
        _require(wanted, names)
        return tuple(wanted), index
    files = sorted(name for name in names if name.endswith(".safetensors"))
    if SINGLE in files:
        return (SINGLE,), {}
    if len(files) == 1 and not _PART.match(files[0]):
        return (files[0],), {}
    if files and (part := _PART.match(files[0])):
        count, stem = int(part["count"]), part["stem"]
        wanted = [f"{stem}-{number:05d}-of-{count:05d}.safetensors" for number in range(1, min(count, 10_000) + 1)]
        _require(wanted, names)
        if set(wanted) == set(files):
            return tuple(wanted), {}
    raise Malformed(f"has several .safetensors files and no {INDEX}: which of them are the model cannot be told")


def _require(wanted: Iterable[str], names: Collection[str]) -> None:
    missing = [name for name in wanted if name not in names]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise Malformed(f"{shown(missing[0])}{more} is missing")


def _read_index(folder: Path, name: str) -> dict[str, str]:
    try:
        index: _Index = parse_json(read_up_to(folder / name, MAX_HEADER), _Index)
    except Malformed as problem:
        raise Malformed(f"{shown(name)} {problem}") from problem
    if not index.weight_map:
        raise Malformed(f"{shown(name)} names no files")
    strange = next((file for file in index.weight_map.values() if "/" in file or "\\" in file or "\0" in file), None)
    if strange is not None:
        raise Malformed(f"{shown(name)} names a file outside its folder")
    return index.weight_map


def _check_index(index: dict[str, str], tensors: set[str]) -> None:
    lacking = next((tensor for tensor in index if tensor not in tensors), None)
    if lacking is not None:
        raise Malformed(f"{shown(index[lacking])} lacks the tensor {shown(lacking)} that the index has it hold")


def _read_file(path: Path, name: str) -> tuple[dict[str, _Tensor], int]:
    """The tensors of one file, and its size; the file is proved to be as long as they need."""
    try:
        with opened(path) as (descriptor, size):
            if size < _LENGTH.size:
                raise Malformed("is cut short")
            (length,) = _LENGTH.unpack(pread_all(descriptor, _LENGTH.size, 0))
            if length > MAX_HEADER:
                raise Malformed("is not a safetensors file: the length of its header cannot be right")
            if _LENGTH.size + length > size:
                raise Malformed("is cut short: it ends in its header")
            header = pread_all(descriptor, length, _LENGTH.size)
            return _tensors_of(header, size - _LENGTH.size - length), size
    except Malformed as problem:
        raise Malformed(f"{shown(name)} {problem}") from problem


def _tensors_of(header: bytes, room: int) -> dict[str, _Tensor]:
    document: dict[str, msgspec.Raw] = parse_json(header, dict[str, msgspec.Raw])
    document.pop("__metadata__", None)
    tensors = {name: parse_json(bytes(raw), _Tensor) for name, raw in document.items()}
    needed = 0
    for name, tensor in tensors.items():
        start, end = tensor.data_offsets
        if not 0 <= start <= end or any(side < 0 for side in tensor.shape) or not _fits(tensor):
            raise Malformed(f"cannot be right: the tensor {shown(name)} has not the size of its shape")
        needed = max(needed, end)
    if needed > room:
        raise Malformed(f"is cut short: it has {room} bytes of data of {needed}")
    if needed < room:
        raise Malformed(f"cannot be right: {room - needed} bytes after its last tensor")
    return tensors


def _fits(tensor: _Tensor) -> bool:
    bits = DTYPE_BITS.get(tensor.dtype)
    start, end = tensor.data_offsets
    return bits is None or -(-prod(tensor.shape) * bits // 8) == end - start


def _painter(tensors: set[str]) -> str:
    """Which family of image models a file in the layout of its makers is, by the tensors that only that has."""
    return next((family for family, marks in _PAINTERS if any(mark in tensors for mark in marks)), "")


def _experts(tensors: Iterable[str]) -> int | None:
    """How many experts the names of the tensors count, where each has tensors of its own."""
    numbers = {int(hit[1]) for name in tensors if (hit := _EXPERT.search(name))}
    return max(numbers) + 1 if numbers else None
