"""The models that the GGUF files of one folder are: single files, files in parts, and what lets a model see."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nodes.runtime.files.architectures import families
from nodes.runtime.files.gguf_header import GgufHeader
from nodes.runtime.files.ids import id_of
from nodes.runtime.files.reading import shown
from nodes.runtime.files.tree import File, Folder
from nodes.runtime.models import ModelFile, ModelFormat, Task

ReadHeader = Callable[[File], GgufHeader]

_PART: Final = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf\Z", re.IGNORECASE)
_SUFFIX: Final = ".gguf"
_MOST_PARTS: Final = 1000
_RANK: Final = 4  # pooling_type: the last of them

# general.architecture of what computes one vector, and of what makes images (ComfyUI-GGUF, stable-diffusion.cpp).
_ENCODERS: Final = frozenset(
    {
        "bert",
        "modern-bert",
        "nomic-bert",
        "nomic-bert-moe",
        "neo-bert",
        "jina-bert-v2",
        "jina-bert-v3",
        "eurobert",
        "gemma-embedding",
        "llama-embed",
        "t5encoder",
    }
)
_PAINTERS: Final = frozenset(
    {
        "sd1",
        "sd2",
        "sdxl",
        "sd3",
        "flux",
        "flux2",
        "lumina2",
        "aura",
        "hidream",
        "cosmos",
        "ltxv",
        "hyvid",
        "wan",
        "qwen_image",
        "pixart",
    }
)
_PROJECTORS: Final = ("mmproj", "clip")
_NO_MODELS: Final = {
    "adapter": "is a LoRA adapter, not a whole model",
    "imatrix": "is a matrix for quantising, not a model",
    "vocab": "is a vocabulary, not a model",
    "dataset": "is a data set, not a model",
}


@dataclass(frozen=True, slots=True)
class _Group:
    """The files of one model: one, or all parts that are there."""

    stem: str
    files: tuple[File, ...]
    header: GgufHeader
    problem: str

    @property
    def is_projector(self) -> bool:
        return self.header.kind == _PROJECTORS[0] or self.header.architecture == _PROJECTORS[1]


def gguf_models(folder: Folder, read: ReadHeader, *, alone: bool) -> list[ModelFile]:
    """The models in a folder's GGUF files. `alone` says that the folder has no model in another format.

    One model that has the folder to itself has the folder's path as its id; any other the path of its file.
    """
    groups = list(_groups(folder, read))
    models = [group for group in groups if not group.is_projector]
    projector = _projector_for(folder, models, [group for group in groups if group.is_projector])
    named_by_folder = alone and len(models) == 1 and not folder.is_top
    found = [_model(folder, group, projector, named_by_folder=named_by_folder) for group in models]
    if models:
        return found
    return [_lonely_projector(folder, group) for group in groups]


def _groups(folder: Folder, read: ReadHeader) -> Iterable[_Group]:
    parts: dict[tuple[str, int], dict[int, File]] = {}
    for name, file in sorted(folder.files.items()):
        if not name.lower().endswith(_SUFFIX):
            continue
        part = _PART.match(name)
        if part is None:
            header = read(file)
            problem = f"{shown(name)} {header.problem}" if header.problem else _no_model(name, header)
            yield _Group(name[: -len(_SUFFIX)], (file,), header, problem or _split_alone(name, header))
        else:
            parts.setdefault((part["stem"], int(part["count"])), {})[int(part["number"])] = file
    for (stem, count), files in parts.items():
        yield _in_parts(stem, count, files, read)


def _in_parts(stem: str, count: int, files: dict[int, File], read: ReadHeader) -> _Group:
    present = tuple(file for _, file in sorted(files.items()))
    missing = next((number for number in range(1, min(count, _MOST_PARTS) + 1) if number not in files), None)
    if missing is not None:
        problem = f"{shown(stem)}-{missing:05d}-of-{count:05d}.gguf is missing"
        return _Group(stem, present, read(present[0]), problem)
    headers = [read(file) for file in present]
    for number, (file, header) in enumerate(zip(present, headers, strict=True)):
        name = shown(file.path.name)
        if header.problem:
            return _Group(stem, present, headers[0], f"{name} {header.problem}")
        if (header.split_no, header.split_count) != (number, count) and count > 1:
            return _Group(stem, present, headers[0], f"{name} is not the part that its name says")
    return _Group(stem, present, headers[0], _no_model(stem, headers[0]))


def _split_alone(name: str, header: GgufHeader) -> str:
    if header.split_count > 1:
        return f"{shown(name)} is one of {header.split_count} parts: their names must end in -00001-of-00002.gguf"
    return "" if header.tensor_count else f"{shown(name)} has no tensors"


def _no_model(name: str, header: GgufHeader) -> str:
    reason = _NO_MODELS.get(header.kind)
    return f"{shown(name)} {reason}" if reason else ""


def _projector_for(folder: Folder, models: list[_Group], projectors: list[_Group]) -> Path | None:
    """The file that lets the models of this folder see, if it can only be theirs; the one in F16 of several."""
    whole = [group for group in projectors if not group.problem]
    same = {(group.header.architecture, group.header.context_length) for group in models}
    if folder.is_top or not whole or len(same) != 1:
        return None
    best = next((group for group in whole if group.header.quantization == "F16"), whole[0])
    return best.files[0].path


def _model(folder: Folder, group: _Group, projector: Path | None, *, named_by_folder: bool) -> ModelFile:
    header = group.header
    model_id, bad_name = id_of(folder.relative if named_by_folder else folder.below(group.stem))
    belonging = tuple(folder.files.values()) if named_by_folder else group.files
    return ModelFile(
        id=model_id,
        path=group.files[0].path,
        format=ModelFormat.GGUF,
        architectures=families([header.architecture]),
        declared=(header.architecture,) if header.architecture else (),
        size_bytes=sum(file.size for file in group.files),
        quantization=header.quantization,
        context_length=header.context_length,
        has_chat_template=header.has_chat_template,
        tensor_count=header.tensor_count or None,
        expert_count=header.expert_count,
        task=_task(header),
        projector=projector,
        files=tuple(sorted(file.path for file in belonging)),
        problem=group.problem or bad_name,
        modified=max(file.modified_ns for file in group.files) / 1e9,
    )


def _lonely_projector(folder: Folder, group: _Group) -> ModelFile:
    model_id, _ = id_of(folder.below(group.stem))
    return ModelFile(
        id=model_id,
        path=group.files[0].path,
        format=ModelFormat.GGUF,
        size_bytes=group.files[0].size,
        files=tuple(file.path for file in group.files),
        problem=group.problem or "it lets another model see, and that model is not beside it",
        modified=group.files[0].modified_ns / 1e9,
    )


def _task(header: GgufHeader) -> Task:
    if header.architecture in _PAINTERS:
        return Task.IMAGE
    if header.pooling == _RANK:
        return Task.RERANK
    if header.pooling or header.architecture in _ENCODERS:
        return Task.EMBEDDING
    return Task.TEXT
