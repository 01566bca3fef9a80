"""What the header of a GGUF file says, without touching its tensors.

The layout is the one documented at https://github.com/ggml-org/ggml/blob/master/docs/gguf.md: magic, version, counts,
key-value pairs, one record per tensor, padding, data. All numbers are little-endian.

Most of a header is the vocabulary: hundreds of thousands of strings, each with its own length before it, which nobody
here wants. Walking them takes 10 to 50 ms a file. So we first look for the next key by its looks, and trust that only
if everything after it, to the last tensor record, is sound; if it is not, we walk.
"""

from __future__ import annotations

import os
import re
import struct
from collections import Counter
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Final

from nodes.runtime.files.gguf_types import ARRAY, FILE_TYPES, GUESSED, STRING, TENSOR_TYPES, VALUE_FORMATS
from nodes.runtime.files.reading import MIB, Malformed, opened

MAX_HEADER: Final = 64 * MIB  # the largest vocabularies in use take 15 MiB
FIRST_READ: Final = 64 * 1024
MOST_PAIRS: Final = 10_000
MOST_TENSORS: Final = 100_000
MOST_DIMENSIONS: Final = 8
MOST_NESTED: Final = 4
LONGEST_KEY: Final = 65_535
LONG_ARRAY: Final = 2_000  # strings; from here on, searching beats walking

_START: Final = struct.Struct("<4sIQQ")
_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")
_TENSORS: Final = {count: struct.Struct(f"<{count}QIQ") for count in range(MOST_DIMENSIONS + 1)}
_VALUES: Final = {number: struct.Struct("<" + letter) for number, letter in VALUE_FORMATS.items()}
_NEXT_KEY: Final = b"tokenizer."  # what the arrays of a vocabulary are followed by
_KEY: Final = re.compile(rb"[a-z0-9_.]+\Z")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.+-]{0,63}\Z", re.IGNORECASE)

# Keys whose values we keep, in full or by their end (they begin with the architecture).
_WANTED: Final = frozenset(
    {"general.architecture", "general.type", "general.file_type", "general.alignment", "split.no", "split.count"}
)
_WANTED_ENDS: Final = (".context_length", ".expert_count", ".pooling_type")
_CHAT_TEMPLATES: Final = frozenset({"tokenizer.chat_template", "tokenizer.chat_templates"})


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """The facts of one GGUF file. Where there is a `problem` it says why this file is not whole."""

    architecture: str = ""  # as the file has it: "gpt-oss"
    kind: str = "model"  # general.type: model, adapter, mmproj, imatrix, vocab …
    quantization: str = ""
    context_length: int | None = None
    expert_count: int | None = None
    pooling: int | None = None  # 0 none, 1 mean, 2 first, 3 last, 4 rank
    has_chat_template: bool = False
    tensor_count: int = 0
    split_no: int = 0
    split_count: int = 0  # 0 or 1: not split
    size_bytes: int = 0
    problem: str = ""


def read_gguf(path: Path) -> GgufHeader:
    """The header of the file at `path`; never raises, and never reads more than MAX_HEADER bytes."""
    try:
        with opened(path) as (descriptor, size):
            header = _Parse(descriptor, size, search=True).run()
            return header if not header.problem else _Parse(descriptor, size, search=False).run()
    except Malformed as problem:
        return GgufHeader(problem=str(problem))


@dataclass(slots=True)
class _Parse:
    """One pass over a header: a window on the start of the file that grows, and a position in it."""

    descriptor: int
    size: int
    search: bool
    at: int = 0
    window: bytes = b""
    found: dict[str, Any] = field(default_factory=dict)
    has_chat_template: bool = False
    tensors: int = 0
    types: Counter[int] = field(default_factory=Counter)

    def run(self) -> GgufHeader:
        problem = ""
        try:
            self._read()
        except Malformed as error:
            problem = str(error)
        architecture = self._text("general.architecture")
        return GgufHeader(
            architecture=architecture,
            kind=self._text("general.type") or "model",
            quantization=self._quantization(),
            context_length=self._number(f"{architecture}.context_length"),
            expert_count=self._number(f"{architecture}.expert_count"),
            pooling=self._number(f"{architecture}.pooling_type"),
            has_chat_template=self.has_chat_template,
            tensor_count=self.tensors,
            split_no=self._number("split.no") or 0,
            split_count=self._number("split.count") or 0,
            size_bytes=self.size,
            problem=problem,
        )

    def _read(self) -> None:
        magic, version, tensors, pairs = self._take(_START)
        if magic != b"GGUF":
            raise Malformed("is not a GGUF file: it does not begin with GGUF")
        if version not in (2, 3):
            known = {1: "which engines no longer load", 0x02000000: "big-endian", 0x03000000: "big-endian"}
            raise Malformed(f"is GGUF of another version ({known.get(version, version)}); 2 and 3 are known")
        if pairs > MOST_PAIRS or tensors > MOST_TENSORS:
            raise Malformed(f"cannot be right: its header counts {pairs} keys and {tensors} tensors")
        for _ in range(pairs):
            self._pair()
        first_part = not self._number("split.no")  # the others say nothing but which part they are
        if first_part and not _NAME.match(self._text("general.architecture")):
            raise Malformed("does not name its architecture")
        self._tensors(tensors)

    def _pair(self) -> None:
        key = self._string(LONGEST_KEY).decode("utf-8", "replace")
        (kind,) = self._take(_U32)
        if key in _CHAT_TEMPLATES:
            before = self.at
            self._skip(kind, 0)
            self.has_chat_template |= self.at - before > _U64.size  # more than the length of an empty one
        elif (key in _WANTED or key.endswith(_WANTED_ENDS)) and kind != ARRAY:
            self.found[key] = self._value(kind)
        else:
            self._skip(kind, 0)

    def _value(self, kind: int) -> Any:
        if kind == STRING:
            return self._string(LONGEST_KEY).decode("utf-8", "replace")
        layout = _VALUES.get(kind)
        if layout is None:
            raise Malformed(f"cannot be right: a value of the unknown type {kind}")
        return self._take(layout)[0]

    def _skip(self, kind: int, depth: int) -> None:
        if kind == STRING:
            self._skip_strings(1)
        elif kind in _VALUES:
            self._forward(_VALUES[kind].size)
        elif kind == ARRAY and depth < MOST_NESTED:
            inner, count = self._take(_U32)[0], self._take(_U64)[0]
            self._skip_array(inner, count, depth)
        else:
            raise Malformed(f"cannot be right: a value of the unknown type {kind}")

    def _skip_array(self, kind: int, count: int, depth: int) -> None:
        if count > self.size - self.at:  # an item has at least one byte
            raise Malformed("ends in the middle of its header")
        if kind in _VALUES:
            self._forward(_VALUES[kind].size * count)
        elif kind == STRING and not (self.search and count >= LONG_ARRAY and self._jump()):
            self._skip_strings(count)
        elif kind != STRING:
            for _ in range(count):
                self._skip(kind, depth + 1)

    def _skip_strings(self, count: int) -> None:
        at, left, length = self.at, count, _U64.unpack_from
        while left:
            window = self.window
            try:
                while left:
                    at += 8 + length(window, at)[0]
                    left -= 1
            except (struct.error, OverflowError):
                self._reach(at + 8)
        self.at = at
        self._reach(at)

    def _jump(self) -> bool:
        """Moves to the next key of the file, found by its looks; false where none is in sight."""
        start = self.at
        while True:
            hit = self.window.find(_NEXT_KEY, start)
            if hit >= 0:
                if self._is_key(hit):
                    self.at = hit - _U64.size
                    return True
                start = hit + 1
            elif len(self.window) < min(self.size, MAX_HEADER):
                start = max(self.at, len(self.window) - len(_NEXT_KEY))
                self._reach(len(self.window) + 1)
            else:
                return False

    def _is_key(self, start: int) -> bool:
        """Whether what begins there is a key: its length before it, its letters, the type of a value after it."""
        end = start + min(_U64.unpack_from(self.window, start - _U64.size)[0], LONGEST_KEY)
        if end + _U32.size > len(self.window):
            return False
        return bool(_KEY.match(self.window, start, end)) and _U32.unpack_from(self.window, end)[0] <= max(_VALUES)

    def _tensors(self, count: int) -> None:
        ends = 0
        for _ in range(count):
            name_length = self._take(_U64)[0]
            self._forward(name_length if name_length <= LONGEST_KEY else self.size)
            layout = _TENSORS.get(self._take(_U32)[0])
            if layout is None:
                raise Malformed(f"cannot be right: a tensor of more than {MOST_DIMENSIONS} dimensions")
            *shape, kind, offset = self._take(layout)
            values = prod(shape)
            self.types[kind] += values
            ends = max(ends, offset + _bytes_of(kind, values))
        self.tensors = count
        self._check_data(ends)

    def _check_data(self, ends: int) -> None:
        alignment = self._number("general.alignment") or 32
        data_starts = -(-self.at // alignment) * alignment
        whole = data_starts + ends if ends else self.at
        if whole > self.size:
            raise Malformed(f"is cut short: it has {self.size} bytes of {whole}")

    def _quantization(self) -> str:
        told = self._number("general.file_type")
        if told is not None and (name := FILE_TYPES.get(told & ~GUESSED)):
            return name
        if not self.types:
            return ""
        kind = self.types.most_common(1)[0][0]
        return TENSOR_TYPES[kind][0] if kind in TENSOR_TYPES else ""

    def _text(self, key: str) -> str:
        value = self.found.get(key)
        return value.strip().lower() if isinstance(value, str) else ""

    def _number(self, key: str) -> int | None:
        value = self.found.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None

    def _string(self, longest: int) -> bytes:
        (length,) = self._take(_U64)
        if length > longest:
            raise Malformed(f"cannot be right: a name of {length} bytes")
        start = self.at
        self._forward(length)
        self._reach(self.at)
        return self.window[start : self.at]

    def _take(self, layout: struct.Struct) -> tuple[Any, ...]:
        start = self.at
        self.at = start + layout.size
        if self.at > len(self.window):
            self._reach(self.at)
        return layout.unpack_from(self.window, start)

    def _forward(self, count: int) -> None:
        self.at += count
        if self.at > self.size:
            raise Malformed("ends in the middle of its header")

    def _reach(self, end: int) -> None:
        """Has the window cover the first `end` bytes of the file, at least."""
        if end > self.size:
            raise Malformed("ends in the middle of its header")
        if end > MAX_HEADER:
            raise Malformed(f"has a header of more than {MAX_HEADER // MIB} MiB")
        wanted = max(FIRST_READ, len(self.window))
        while wanted < end:
            wanted *= 2
        if len(self.window) < end:
            # From the start again, into memory just given back: to be given new memory costs more than to read twice.
            self.window = b""
            self.window = os.pread(self.descriptor, wanted, 0)
        if len(self.window) < end:
            raise Malformed("ends in the middle of its header")


def _bytes_of(kind: int, values: int) -> int:
    """The bytes that so many values of a tensor type take; 0 where the type is newer than this table."""
    if kind not in TENSOR_TYPES:
        return 0
    _, block, size = TENSOR_TYPES[kind]
    return -(-values // block) * size
