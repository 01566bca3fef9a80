"""One look at a directory, as the tests of it want it."""

from __future__ import annotations

from pathlib import Path

from nodes.runtime.files.scan import Scanner
from nodes.runtime.models import ModelFile


def scan(root: Path) -> dict[str, ModelFile]:
    models = Scanner(root, settle=0).scan()
    assert len({model.id for model in models}) == len(models)
    return {model.id: model for model in models}


def whole(root: Path) -> list[str]:
    return [model.id for model in Scanner(root, settle=0).scan() if not model.problem]


def problem(root: Path) -> str:
    (model,) = Scanner(root, settle=0).scan()
    return model.problem
