"""Whether a CTranslate2 model (`model.bin`) is whole, and which kind it is.

The layout is that of `ctranslate2.specs`: version, name of the specification, its revision, a count of variables, each
with name, shape, type and bytes, then aliases. Little-endian; a name is two bytes of length, letters, a zero.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nodes.runtime.files.reading import Malformed, opened, pread_all

MODEL: Final = "model.bin"
_START: Final = struct.Struct("<I")
_COUNTS: Final = struct.Struct("<II")
_LENGTH: Final = struct.Struct("<H")
_DATA: Final = struct.Struct("<BI")
_MOST_VARIABLES: Final = 100_000
_MOST_DIMENSIONS: Final = 8
_NEWEST_VERSION: Final = 20
_ALIASES_SINCE: Final = 3


@dataclass(frozen=True, slots=True)
class Binary:
    """`specification` is "WhisperSpec" for speech to text."""

    specification: str = ""
    variables: int = 0
    problem: str = ""


def read_binary(path: Path) -> Binary:
    """The model at `path`; never raises. It reads the names and sizes of the variables, not their data."""
    try:
        with opened(path) as (descriptor, size):
            return _Reader(descriptor, size).run()
    except Malformed as problem:
        return Binary(problem=str(problem))


class _Reader:
    def __init__(self, descriptor: int, size: int) -> None:
        self.descriptor = descriptor
        self.size = size
        self.at = 0

    def run(self) -> Binary:
        (version,) = self._take(_START)
        if not 1 <= version <= _NEWEST_VERSION:
            raise Malformed("is not a CTranslate2 model")
        name = self._name()
        _, count = self._take(_COUNTS)
        if not name.isascii() or not name.isalnum() or count > _MOST_VARIABLES:
            raise Malformed("is not a CTranslate2 model")
        for _ in range(count):
            self._name()
            dimensions = self._bytes(1)[0]
            if dimensions > _MOST_DIMENSIONS:
                raise Malformed("cannot be right: a variable of too many dimensions")
            self._forward(4 * dimensions)
            _, length = self._take(_DATA)
            self._forward(length)
        if version >= _ALIASES_SINCE:
            for _ in range(2 * min(self._take(_START)[0], _MOST_VARIABLES)):
                self._name()
        if count == 0:
            raise Malformed("holds no weights")
        return Binary(name, count)

    def _name(self) -> str:
        (length,) = self._take(_LENGTH)
        return self._bytes(length).rstrip(b"\0").decode("utf-8", "replace")

    def _take(self, layout: struct.Struct) -> tuple[int, ...]:
        return layout.unpack(self._bytes(layout.size))

    def _bytes(self, count: int) -> bytes:
        start = self.at
        self._forward(count)
        return pread_all(self.descriptor, count, start)

    def _forward(self, count: int) -> None:
        self.at += count
        if self.at > self.size:
            raise Malformed(f"is cut short: it has {self.size} bytes of {self.at} or more")
