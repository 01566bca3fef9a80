"""Deleting a model's files, and the folders that are empty without them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from nodes.runtime.fetching.failures import FetchFailed
from nodes.runtime.models import ModelFile

BLOBS: Final = "blobs"

log = logging.getLogger("llmlb.node.pulls")


def delete_model(model: ModelFile, models_dir: Path) -> int:
    """Delete what belongs to a model. Returns: how many bytes that were.

    Raises:
        FetchFailed: it has no files, or one that lies outside (a symbolic link leads there) or cannot be deleted.
    """
    root = models_dir.resolve()
    files = list(model.files) or ([model.path] if model.path.is_file() else [])
    if not files:
        raise FetchFailed(f"{model.id} has no file here that could be deleted")
    for path in files:
        if not path.parent.resolve().is_relative_to(root):
            raise FetchFailed(f"{model.id} lies outside the models directory")
    freed = 0
    blobs = {path.resolve() for path in files if path.is_symlink()}
    try:
        for path in [*files, *_only_linked_from(files, blobs, root)]:
            freed += path.lstat().st_size
            path.unlink()
    except OSError as error:
        raise FetchFailed(f"{model.id} cannot be deleted: {error.strerror}") from error
    for folder in {path.parent.resolve() for path in [*files, *blobs]}:
        _remove_empty(folder, root)
    log.info("deleted: model=%s bytes=%d", model.id, freed)
    return freed


def _only_linked_from(files: Sequence[Path], blobs: set[Path], root: Path) -> list[Path]:
    """Of the contents in a cache of Hugging Face, whose snapshots are links, those that no other snapshot needs."""
    own = [blob for blob in blobs if blob.parent.name == BLOBS and blob.is_relative_to(root) and blob.is_file()]
    others: set[Path] = set()
    for repository in {blob.parent.parent for blob in own}:
        links = {path for path in repository.rglob("*") if path.is_symlink()}
        others |= {path.resolve() for path in links.difference(files)}
    return [blob for blob in own if blob not in others]


def _remove_empty(folder: Path, root: Path) -> None:
    while folder != root and folder.is_relative_to(root):
        with suppress(OSError):
            folder.rmdir()
        if folder.exists():
            return
        folder = folder.parent
