"""A file that is not whole yet: what is there of it, whose content that is, and its hash so far."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from nodes.runtime.fetching.plan import RemoteFile

CHUNK: Final = 1024 * 1024


class PartFile:
    """`<name>.part`, and beside it `<name>.tag`: what tells the content that it is the beginning of from any other.

    Without such a tag, a hash or a strong ETag, a beginning is worth nothing: the file may have changed since.
    """

    def __init__(self, target: Path, file: RemoteFile) -> None:
        self.target = target
        self._part = target.with_name(target.name + ".part")
        self._tag = target.with_name(target.name + ".tag")
        self._remote = file
        self.size = 0

    def __enter__(self) -> Self:
        self.target.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self._part, "ab")  # closed in __exit__
        self._hash = _hasher(self._remote)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def etag(self) -> str:
        """The strong ETag of the content that is here; empty where a hash tells it, or nothing does."""
        tag = self._read_tag()
        return tag.removeprefix("etag:") if tag.startswith("etag:") else ""

    def recover(self, told: Callable[[int], None]) -> None:
        """Take up what an earlier run has left, if it is of the same content; `told` gets the bytes that are read."""
        tag = self._read_tag()
        if not tag or (self._remote.digest and tag != self._remote.digest):
            return self.restart()
        with open(self._part, "rb") as left:
            while piece := left.read(CHUNK):
                self._hash.update(piece)
                self.size += len(piece)
                told(len(piece))

    def restart(self, etag: str = "") -> None:
        """Throw away what is here. `etag` is that of the content to come."""
        self._file.truncate(0)
        self.size = 0
        self._hash = _hasher(self._remote)
        tag = self._remote.digest or (f"etag:{etag}" if etag and not etag.startswith("W/") else "")
        if tag:
            self._tag.write_text(tag)
        else:
            self._tag.unlink(missing_ok=True)

    def append(self, piece: bytes) -> None:
        self._file.write(piece)
        self._hash.update(piece)
        self.size += len(piece)

    def matches(self) -> bool:
        """Whether the content has the hash that was promised; True where none was."""
        promised = self._remote.sha256 or self._remote.git_sha1
        return not promised or self._hash.hexdigest() == promised

    def finish(self) -> None:
        """On disk for good, under its own name."""
        self._file.flush()
        os.fsync(self._file.fileno())
        os.replace(self._part, self.target)
        self._tag.unlink(missing_ok=True)

    def remove(self) -> None:
        self._part.unlink(missing_ok=True)
        self._tag.unlink(missing_ok=True)

    def _read_tag(self) -> str:
        with suppress(OSError):
            return self._tag.read_text()
        return ""


def has_content(path: Path, file: RemoteFile) -> bool:
    """Whether `path` is this file already, by its hash. Without one to tell by it is not."""
    if not file.digest or not path.is_file() or (file.size is not None and path.stat().st_size != file.size):
        return False
    known = _hasher(file)
    with open(path, "rb") as content:
        while piece := content.read(CHUNK):
            known.update(piece)
    return known.hexdigest() == (file.sha256 or file.git_sha1)


def _hasher(file: RemoteFile) -> hashlib._Hash:
    if file.git_sha1:
        # Git's own way to name a content: no protection against forgers, but the only hash there is of small files.
        return hashlib.sha1(b"blob %d\0" % (file.size or 0), usedforsecurity=False)
    return hashlib.sha256()
