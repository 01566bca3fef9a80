"""All models of a directory: which folders and files are models, whole or not, and under which ids.

A scan walks the directory and reads the headers of what has changed since the last one. So a second scan of a directory
in which nothing has changed costs no more than the walk.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from nodes.runtime.files.folder_models import folders_below, models_in
from nodes.runtime.files.gguf_header import GgufHeader, read_gguf
from nodes.runtime.files.hf_config import CONFIG
from nodes.runtime.files.reading import shown
from nodes.runtime.files.snapshots import weightless_model
from nodes.runtime.files.tree import File, Folder, read_tree
from nodes.runtime.models import ModelFile

SETTLE: Final = 2.0  # seconds that a file must have been left alone before it counts as whole
BEING_WRITTEN: Final = "is being written: it was changed a moment ago"


class Scanner:
    """One directory, looked at again and again. `settle` is seconds; 0 takes every file as it stands."""

    def __init__(self, top: Path, *, settle: float = SETTLE) -> None:
        self.top = top
        self.settle = settle
        self._folders: dict[str, tuple[tuple[Any, ...], list[ModelFile]]] = {}
        self._headers: dict[File, GgufHeader] = {}

    def scan(self) -> list[ModelFile]:
        """Every model in the order of ids, whole or with its problem. Of two with one id at most one is whole.

        Raises:
            OSError: the directory itself is not there, or cannot be read.
        """
        top = read_tree(self.top)
        found = self._below(top)
        self._forget_all_but(top)
        now = time.time()
        return each_id_once([self._settled(model, now) for model in found], top.path)

    def _below(self, folder: Folder) -> list[ModelFile]:
        """The models in a folder and below it, as found before where nothing has changed."""
        before = self._folders.get(folder.relative)
        if before is not None and before[0] == folder.signature:
            return before[1]
        found, whole = models_in(folder, self._read_header)
        if not whole:
            for below in folders_below(folder):
                found += self._below(below)
        if not found and CONFIG in folder.files:
            found = [weightless_model(folder)]
        self._folders[folder.relative] = (folder.signature, found)
        return found

    def _read_header(self, file: File) -> GgufHeader:
        header = self._headers.get(file)
        if header is None:
            header = self._headers[file] = read_gguf(file.path)
        return header

    def _forget_all_but(self, top: Folder) -> None:
        """Drops what is known of files and folders that are gone or have changed."""
        present = set(top.all_files())
        self._headers = {file: header for file, header in self._headers.items() if file in present}
        folders = {folder.relative for folder in top.all_folders()}
        self._folders = {relative: known for relative, known in self._folders.items() if relative in folders}

    def _settled(self, model: ModelFile, now: float) -> ModelFile:
        changing = not model.problem and abs(now - model.modified) < self.settle
        return replace(model, problem=BEING_WRITTEN) if changing else model


def each_id_once(models: Iterable[ModelFile], top: Path) -> list[ModelFile]:
    """The models in the order of ids. Of those with one id the first by path is it, a whole one before the others."""
    taken: dict[str, ModelFile] = {}
    result = []
    for model in sorted(models, key=lambda model: (model.id, bool(model.problem), str(model.path))):
        first = taken.setdefault(model.id, model)
        if first is not model and not model.problem:
            where = shown(str(first.path.relative_to(top)))
            model = replace(model, problem=f"has the same id as {where}, which is served under it")
        result.append(model)
    return result
