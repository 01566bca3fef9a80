"""The models directory as it is on disk, read in one walk: names, sizes and times, no contents.

No link leads out of it (SPEC-dcaeaec4): a link to a file is followed where the file is inside, a link to a folder never
is (what is inside is found by its own path), so there are no cycles either. Hidden files and folders are no models: a
download that is under way is kept in one.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from nodes.runtime.files.reading import reason_of

DEEPEST: Final = 8  # folders below folders; a hub cache takes three
MOST_FILES: Final = 200_000
_OUT: Final = "is a link that leads out of the models directory, which is not followed"


@dataclass(frozen=True, slots=True)
class File:
    """One ordinary file: size in bytes, times in nanoseconds since the epoch.

    `changed_ns` also tells of a new name or permission, and nobody can set it.
    """

    path: Path
    size: int
    modified_ns: int
    changed_ns: int
    inode: int


@dataclass(slots=True)
class Folder:
    """One folder with all below it. `relative` is its path below the models directory, empty for that itself."""

    path: Path
    relative: str
    files: dict[str, File] = field(default_factory=dict)
    folders: dict[str, Folder] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)  # a name in it, and why that is not looked at
    signature: tuple[Any, ...] = ()  # equal in two walks between which nothing in it or below it has changed

    @property
    def is_top(self) -> bool:
        return not self.relative

    def below(self, name: str) -> str:
        """The path of something in it, below the models directory."""
        return f"{self.relative}/{name}" if self.relative else name

    def all_files(self) -> Iterator[File]:
        """The files in it and below it."""
        yield from self.files.values()
        for folder in self.folders.values():
            yield from folder.all_files()

    def all_refused(self) -> Iterator[tuple[str, str]]:
        """The names that are not looked at, in it and below it, with their reasons."""
        for folder in self.all_folders():
            yield from sorted(folder.refused.items())

    def all_folders(self) -> Iterator[Folder]:
        """This folder and those below it."""
        yield self
        for folder in self.folders.values():
            yield from folder.all_folders()


def read_tree(top: Path) -> Folder:
    """The models directory.

    Raises:
        OSError: it is not there, or cannot be read.
    """
    real = Path(os.path.realpath(top, strict=True))
    walk = _Walk(f"{real}{os.sep}")
    folder = Folder(real, "")
    with os.scandir(real) as entries:
        walk.fill(folder, list(entries), depth=0)
    return folder


class _Walk:
    def __init__(self, inside: str) -> None:
        self.inside = inside
        self.left = MOST_FILES

    def fill(self, folder: Folder, entries: list[os.DirEntry[str]], depth: int) -> None:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            self.left -= 1
            if self.left < 0:
                return
            try:
                self._add(folder, entry, depth)
            except OSError as error:
                folder.refused[entry.name] = f"cannot be read: {reason_of(error)}"
        folder.signature = (
            tuple(sorted(folder.files.items(), key=_first)),
            tuple((name, below.signature) for name, below in sorted(folder.folders.items(), key=_first)),
            tuple(sorted(folder.refused.items())),
        )

    def _add(self, folder: Folder, entry: os.DirEntry[str], depth: int) -> None:
        if entry.is_symlink():
            self._add_link(folder, entry)
        elif entry.is_dir(follow_symlinks=False):
            if depth < DEEPEST:
                below = Folder(folder.path / entry.name, folder.below(entry.name))
                with os.scandir(below.path) as entries:
                    self.fill(below, list(entries), depth + 1)
                folder.folders[entry.name] = below
        else:
            _add_file(folder, entry.name, entry.stat(follow_symlinks=False))

    def _add_link(self, folder: Folder, entry: os.DirEntry[str]) -> None:
        target = os.path.realpath(entry.path, strict=True)
        if not f"{target}{os.sep}".startswith(self.inside):
            folder.refused[entry.name] = _OUT
        elif not entry.is_dir():
            _add_file(folder, entry.name, entry.stat())


def _first(item: tuple[str, Any]) -> str:
    return item[0]


def _add_file(folder: Folder, name: str, told: os.stat_result) -> None:
    if stat.S_ISREG(told.st_mode):
        folder.files[name] = File(folder.path / name, told.st_size, told.st_mtime_ns, told.st_ctime_ns, told.st_ino)
    else:
        folder.refused[name] = "is not an ordinary file"
