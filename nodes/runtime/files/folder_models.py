"""Which models one folder is or holds, by the names of its files."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from nodes.runtime.files.ctranslate2 import MODEL
from nodes.runtime.files.gguf_models import ReadHeader, gguf_models
from nodes.runtime.files.hf_config import CONFIG
from nodes.runtime.files.ids import id_of
from nodes.runtime.files.reading import Malformed, read_up_to, shown
from nodes.runtime.files.snapshots import (
    ONNX_FOLDER,
    PIPELINE,
    checkpoint_models,
    ctranslate2_model,
    onnx_model,
    pipeline_model,
    safetensors_model,
)
from nodes.runtime.files.tree import Folder
from nodes.runtime.files.voices import CONFIG_SUFFIX, voices
from nodes.runtime.models import ModelFile, ModelFormat

ONNX: Final = ".onnx"
SAFETENSORS: Final = (".safetensors", ".safetensors.index.json")
_LIKE_MODELS: Final = (".gguf", ONNX, *SAFETENSORS)
_ARIA2: Final = ".aria2"
_HUB: Final = "models--"
_SNAPSHOTS: Final = "snapshots"
_LONGEST_REVISION: Final = 200


def models_in(folder: Folder, read: ReadHeader) -> tuple[list[ModelFile], bool]:
    """The models of a folder, not of those below it; and whether those below belong to one of them."""
    if PIPELINE in folder.files:
        return [_with_refusals(pipeline_model(folder), folder)], True
    found = _by_folder(folder)
    whole = any(model.path == folder.path for model in found)
    graph = _onnx(folder)
    found += graph
    found += gguf_models(folder, read, alone=not found)
    found = [_with_downloads(_with_refusals(model, folder), folder) for model in found]
    found += [_refused(folder, name) for name in sorted(folder.refused) if _looks_like_model(name)]
    return found, (whole or (bool(graph) and CONFIG in folder.files)) and not folder.is_top


def folders_below(folder: Folder) -> list[Folder]:
    """Where to look for more models: of a repository in Hugging Face's cache only the revision that is in use."""
    snapshots = folder.folders.get(_SNAPSHOTS)
    if not folder.path.name.startswith(_HUB) or snapshots is None:
        return [below for _, below in sorted(folder.folders.items())]
    refs = folder.folders.get("refs")
    try:
        main = read_up_to(refs.files["main"].path, _LONGEST_REVISION).decode().strip() if refs else ""
    except (KeyError, Malformed, UnicodeDecodeError):
        main = ""
    if main in snapshots.folders:
        return [snapshots.folders[main]]
    newest = sorted(snapshots.folders.values(), key=_newest_change)
    return newest[-1:]


def _newest_change(folder: Folder) -> int:
    return max((file.modified_ns for file in folder.all_files()), default=0)


def _by_folder(folder: Folder) -> list[ModelFile]:
    """The one model that the folder as a whole is; or image models that are one file each."""
    if MODEL in folder.files and any(name == CONFIG or name.startswith("vocabulary.") for name in folder.files):
        return [ctranslate2_model(folder)]
    loose = [name for name in sorted(folder.files) if name.endswith(SAFETENSORS)]
    if not loose:
        return []
    if CONFIG in folder.files:
        return [safetensors_model(folder)]
    painters = checkpoint_models(folder)
    rest = [name for name in loose if folder.files[name].path not in {model.path for model in painters}]
    if folder.is_top:
        return painters + [_loose(folder, name) for name in rest]
    return painters or [safetensors_model(folder)]


def _onnx(folder: Folder) -> list[ModelFile]:
    """Encoders and voices."""
    below = folder.folders.get(ONNX_FOLDER)
    if CONFIG in folder.files and below is not None and _has_graph(below):
        return [onnx_model(below, folder)]
    if _has_graph(folder) and CONFIG in folder.files and not _has_voice(folder):
        return [onnx_model(folder, folder)]
    return voices(folder)


def _has_graph(folder: Folder) -> bool:
    return any(name.endswith(ONNX) for name in folder.files)


def _has_voice(folder: Folder) -> bool:
    return any(name.endswith(ONNX + CONFIG_SUFFIX) for name in folder.files)


def _loose(folder: Folder, name: str) -> ModelFile:
    """Weights in the models directory itself, without what a snapshot has beside them."""
    file = folder.files[name]
    return ModelFile(
        id=id_of(name.removesuffix(SAFETENSORS[0]))[0],
        path=file.path,
        format=ModelFormat.SAFETENSORS,
        size_bytes=file.size,
        files=(file.path,),
        problem="config.json is missing: such weights need a folder of their own, with the files of their repo",
        modified=file.modified_ns / 1e9,
    )


def _looks_like_model(name: str) -> bool:
    return name.endswith(_LIKE_MODELS) or "." not in name


def _refused(folder: Folder, name: str) -> ModelFile:
    stem = next((name.removesuffix(suffix) for suffix in _LIKE_MODELS if name.endswith(suffix)), name)
    return ModelFile(
        id=id_of(folder.below(stem))[0],
        path=folder.path / name,
        format=ModelFormat.UNKNOWN,
        problem=folder.refused[name],
    )


def _with_downloads(model: ModelFile, folder: Folder) -> ModelFile:
    """aria2 gives a file its full size at once; until it is whole there is a file of aria2's beside it."""
    names = [path.name for path in model.files if path.parent == folder.path]
    unfinished = next((name for name in names if f"{name}{_ARIA2}" in folder.files), None)
    return model if unfinished is None else replace(model, problem=f"{shown(unfinished)} is not downloaded yet (aria2)")


def _with_refusals(model: ModelFile, folder: Folder) -> ModelFile:
    """A folder is no model if an engine that is given it would follow a link out of the models directory."""
    refused = folder.refused.items() if model.path != folder.path else folder.all_refused()
    needed = [
        (name, reason) for name, reason in refused if model.path == folder.path or f"{name} is missing" == model.problem
    ]
    return replace(model, problem=f"{shown(needed[0][0])} {needed[0][1]}") if needed else model
