"""The voices of Piper in a folder: `name.onnx` with `name.onnx.json` beside it (github.com/OHF-Voice/piper1-gpl)."""

from __future__ import annotations

from typing import Any, Final

from nodes.runtime.files.hf_config import MAX_CONFIG
from nodes.runtime.files.ids import id_of
from nodes.runtime.files.onnx_outline import onnx_problem
from nodes.runtime.files.reading import Malformed, parse_json, read_up_to, shown
from nodes.runtime.files.tree import Folder
from nodes.runtime.models import ModelFile, ModelFormat, Task

SUFFIX: Final = ".onnx"
CONFIG_SUFFIX: Final = ".json"


def voices(folder: Folder) -> list[ModelFile]:
    """A voice for each .onnx file, and for each .onnx.json that lacks its file.

    One voice that has the folder to itself has the folder's path as its id; any other the path of its file.
    """
    stems = sorted(
        {name.removesuffix(CONFIG_SUFFIX).removesuffix(SUFFIX) for name in folder.files if _is_of_voice(name)}
    )
    return [_voice(folder, stem, alone=len(stems) == 1 and not folder.is_top) for stem in stems]


def _is_of_voice(name: str) -> bool:
    return name.endswith((SUFFIX, SUFFIX + CONFIG_SUFFIX))


def _voice(folder: Folder, stem: str, *, alone: bool) -> ModelFile:
    model_id, bad_name = id_of(folder.relative if alone else folder.below(stem))
    name = stem + SUFFIX
    files = [folder.files[part] for part in (name, name + CONFIG_SUFFIX) if part in folder.files]
    return ModelFile(
        id=model_id,
        path=folder.path / name,
        format=ModelFormat.PIPER,
        architectures=("piper",),
        size_bytes=folder.files[name].size if name in folder.files else 0,
        task=Task.TEXT_TO_SPEECH,
        files=tuple(file.path for file in files),
        problem=_problem(folder, name) or bad_name,
        modified=max(file.modified_ns for file in files) / 1e9,
    )


def _problem(folder: Folder, name: str) -> str:
    config = name + CONFIG_SUFFIX
    for part in (name, config):
        if part not in folder.files:
            return f"{shown(part)} is missing"
    if reason := onnx_problem(folder.files[name].path):
        return f"{shown(name)} {reason}"
    try:
        document: Any = parse_json(read_up_to(folder.files[config].path, MAX_CONFIG))
    except Malformed as problem:
        return f"{shown(config)} {problem}"
    if not isinstance(document, dict) or not isinstance(document.get("audio"), dict):
        return f"{shown(config)} does not describe a voice"
    return ""
