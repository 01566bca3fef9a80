"""Reading the first bytes of files that may be anything: bounded, never blocking, never raising past `Malformed`."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

MIB: Final = 1024 * 1024
_LFS_POINTER: Final = b"version https://git-lfs"


class Malformed(Exception):
    """What is wrong with a file, in plain words that follow its name: "is empty", "is not a GGUF file"."""


@contextmanager
def opened(path: Path) -> Iterator[tuple[int, int]]:
    """The file's descriptor and its size in bytes. A pipe or a device is refused, and opening one does not wait.

    Raises:
        Malformed: it is not there, may not be read, is no ordinary file, is empty, or stands for a file elsewhere.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Malformed(f"cannot be read: {reason_of(error)}") from error
    try:
        told = os.fstat(descriptor)
        if not stat.S_ISREG(told.st_mode):
            raise Malformed("is not an ordinary file")
        if told.st_size == 0:
            raise Malformed("is empty (0 bytes)")
        if os.pread(descriptor, len(_LFS_POINTER), 0) == _LFS_POINTER:
            raise Malformed("is a Git LFS pointer, not the file itself: fetch the file with `git lfs pull`")
        yield descriptor, told.st_size
    except OSError as error:
        raise Malformed(f"cannot be read: {reason_of(error)}") from error
    finally:
        os.close(descriptor)


def read_up_to(path: Path, limit: int) -> bytes:
    """The whole of a small file.

    Raises:
        Malformed: it cannot be read, or is larger than `limit` bytes.
    """
    with opened(path) as (descriptor, size):
        if size > limit:
            raise Malformed(f"has {size} bytes, which is more than such a file ever has")
        return pread_all(descriptor, size, 0)


def pread_all(descriptor: int, count: int, offset: int) -> bytes:
    """Exactly `count` bytes at `offset`.

    Raises:
        Malformed: the file ends before that.
    """
    data = os.pread(descriptor, count, offset)
    while len(data) < count:  # one call returns at most 2 GiB, and less where a signal came
        more = os.pread(descriptor, count - len(data), offset + len(data))
        if not more:
            raise Malformed("ends too early")
        data += more
    return data


def parse_json(data: bytes, kind: Any = Any) -> Any:
    """The document, decoded as `kind`.

    Raises:
        Malformed: it is not JSON of that kind.
    """
    try:
        return msgspec.json.decode(data.removeprefix(b"\xef\xbb\xbf"), type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise Malformed("is not the JSON that it should be") from error


def reason_of(error: OSError) -> str:
    """ "permission denied", without number and path."""
    return (error.strerror or "unknown error").lower()


def shown(name: str) -> str:
    """A file's name as text that can be sent and printed, whatever bytes it is made of."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)[:200]
