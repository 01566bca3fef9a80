"""What a pull fetches, file by file, and where that goes below the models directory."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from nodes.runtime.fetching.failures import BadWish

MAX_FILES: Final = 2000
MAX_PATH: Final = 400
_SEGMENT: Final = re.compile(r"[^\x00-\x1f\x7f\\/:]{1,255}")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file to fetch. `path` is relative to the plan's folder.

    `size` is bytes, None where nobody says. Of the two hashes at most one is known: `sha256` for large files and in
    manifests, `git_sha1` (of the content as a Git blob) for small ones of Hugging Face.
    """

    path: str
    url: str
    size: int | None = None
    sha256: str = ""
    git_sha1: str = ""

    @property
    def digest(self) -> str:
        """What tells this content from any other; empty where no hash is known."""
        return f"sha256:{self.sha256}" if self.sha256 else f"git:{self.git_sha1}" if self.git_sha1 else ""


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole model. `folder` is relative to the models directory; empty for a single file at its top."""

    folder: str
    files: tuple[RemoteFile, ...]

    @property
    def model_id(self) -> str:
        """The id that the model will have: its folder's path, or its file's without the suffix."""
        if self.folder:
            return self.folder.lower()
        return PurePosixPath(self.files[0].path).with_suffix("").as_posix().lower()

    @property
    def key(self) -> str:
        """The same for two wishes that end up in the same place."""
        return f"{self.folder}/{min(file.path for file in self.files)}".lower()

    @property
    def total_bytes(self) -> int | None:
        """Of all files; None where the size of one is not known."""
        sizes = [file.size for file in self.files]
        return None if None in sizes else sum(size or 0 for size in sizes)


def make_plan(folder: str, files: Iterable[RemoteFile]) -> Plan:
    """A plan whose paths are known to stay below the models directory.

    Raises:
        BadWish: there is no file, or one has a path that leads out, is hidden, or stands there twice.
    """
    found = tuple(files)
    if not found:
        raise BadWish("there is no file to fetch")
    if len(found) > MAX_FILES:
        raise BadWish(f"{len(found)} files are more than a model has")
    paths = [safe_path(file.path) for file in found]
    if len({path.lower() for path in paths}) != len(paths):
        raise BadWish("two files have the same path")
    return Plan(safe_path(folder) if folder else "", found)


def safe_path(text: str) -> str:
    """A relative path that stays where it is put, as it was given.

    Raises:
        BadWish: it is absolute, climbs, is hidden (a name that begins with a dot), or has characters of no file name.
    """
    segments = text.split("/")
    if len(text) > MAX_PATH or not all(_SEGMENT.fullmatch(part) and not part.startswith(".") for part in segments):
        raise BadWish(f"{text[:80]!r} is not a path that a model's file may have")
    return text


def below(root: Path, relative: str) -> Path:
    """`relative` below `root`, also when symbolic links have been followed. Raises: BadWish."""
    path = root / relative
    if not path.parent.resolve().is_relative_to(root.resolve()) and path.parent != root:
        raise BadWish(f"{relative!r} leads out of the models directory")
    return path
