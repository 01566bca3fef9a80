"""Deleting a model's files, and the folders that are empty without them."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

from nodes.runtime.fetching.failures import FetchFailed
from nodes.runtime.models import ModelFile

log = logging.getLogger("llmlb.node.pulls")


def delete_model(model: ModelFile, models_dir: Path) -> int:
    """Delete what belongs to a model. Returns: how many bytes that were.

    Raises:
        FetchFailed: a file lies outside the directory (a symbolic link leads there), or cannot be deleted.
    """
    root = models_dir.resolve()
    files = list(model.files) or ([model.path] if model.path.is_file() else [])
    for path in files:
        if not path.parent.resolve().is_relative_to(root):
            raise FetchFailed(f"{model.id} lies outside the models directory")
    freed = 0
    try:
        for path in files:
            freed += path.lstat().st_size
            path.unlink()
    except OSError as error:
        raise FetchFailed(f"{model.id} cannot be deleted: {error.strerror}") from error
    for folder in {path.parent for path in files}:
        _remove_empty(folder, models_dir)
    log.info("deleted: model=%s bytes=%d", model.id, freed)
    return freed


def _remove_empty(folder: Path, models_dir: Path) -> None:
    while folder != models_dir and folder.is_relative_to(models_dir):
        with suppress(OSError):
            folder.rmdir()
        if folder.exists():
            return
        folder = folder.parent
