"""Whether an ONNX file is whole, from the outermost fields of its protocol buffer; the graph is not read.

https://protobuf.dev/programming-guides/encoding/ and onnx.proto: `graph` is field 7 of ModelProto.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from nodes.runtime.files.reading import Malformed, opened, pread_all

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_GRAPH: Final = 7
_LONGEST_FIELD_HEAD: Final = 20  # two varints of ten bytes
_MOST_FIELDS: Final = 10_000


def onnx_problem(path: Path) -> str:
    """Why the file at `path` is no whole ONNX model; empty where it is one. Never raises."""
    try:
        with opened(path) as (descriptor, size):
            _check(descriptor, size)
    except Malformed as problem:
        return str(problem)
    return ""


def _check(descriptor: int, size: int) -> None:
    at, fields, graph = 0, 0, False
    while at < size:
        fields += 1
        head = pread_all(descriptor, min(_LONGEST_FIELD_HEAD, size - at), at)
        tag, used = _varint(head, 0)
        number, kind = tag >> 3, tag & 7
        if not 1 <= number < 100 or fields > _MOST_FIELDS:
            raise Malformed("is not an ONNX model")
        if kind == _VARINT:
            _, used = _varint(head, used)
        elif kind == _BYTES:
            length, used = _varint(head, used)
            used += length
        elif kind in (_FIXED32, _FIXED64):
            used += 4 if kind == _FIXED32 else 8
        else:
            raise Malformed("is not an ONNX model")
        graph |= number == _GRAPH and kind == _BYTES
        at += used
    if at > size:
        raise Malformed(f"is cut short: it has {size} bytes of {at}")
    if not graph:
        raise Malformed("is not an ONNX model: it has no graph")


def _varint(data: bytes, start: int) -> tuple[int, int]:
    value = 0
    for index in range(start, min(start + 10, len(data))):
        value |= (data[index] & 0x7F) << (7 * (index - start))
        if data[index] < 0x80:
            return value, index + 1
    raise Malformed("is not an ONNX model")
