"""Which files of a repository make the model that was asked for (requirements: Hugging Face registration rules).

A named file; else the only GGUF, or the one of the quantisation asked for; else the safetensors with what they need;
else the set of another engine. Where the repository leaves a choice, the person is asked to make it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Final

from nodes.runtime.fetching.failures import BadWish

SHOWN: Final = 8
_SPLIT: Final = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)
_QUANTIZATION: Final = re.compile(
    r"(?:^|[-._/])((?:IQ|Q)\d(?:_[A-Z0-9]+)*|BF16|F16|F32|FP16|FP8|MXFP4(?:_MOE)?|TQ\d_\d)(?=[-._/]|$)", re.IGNORECASE
)
_UNUSUAL: Final = re.compile(r"[^a-z0-9._-]")
_TOKENIZERS: Final = ("tokenizer.json", "tokenizer.model", "vocab.txt", "vocab.json", "tiktoken.model")
_PIPELINE: Final = "model_index.json"
_INDEX: Final = ".safetensors.index.json"
_TEXT: Final = (".json", ".txt", ".model", ".jinja", ".tiktoken")
# Weights that stand beside the safetensors in other forms, which no engine here is given.
_OTHER_FORMS: Final = ("original/", "onnx/", "openvino/", "coreml/", "runs/")


def choose(paths: Sequence[str], *, filename: str = "", quantization: str = "") -> tuple[str, ...]:
    """The paths to fetch, sorted.

    Raises:
        BadWish: there is no such file, more than one that fits, or nothing that an engine could load.
    """
    whole = [path for path in paths if not any(part.startswith(".") for part in path.split("/"))]
    if filename:
        return _named(whole, filename)
    ggufs = [path for path in whole if path.lower().endswith(".gguf")]
    if ggufs:
        return _gguf(ggufs, quantization)
    if quantization:
        raise BadWish("the repository has no GGUF file, so there is no quantization to choose")
    chosen = _diffusers(whole) or _safetensors(whole) or _ctranslate2(whole) or _onnx(whole)
    if not chosen:
        raise BadWish("the repository holds no model in a form that is known: GGUF, safetensors, CTranslate2, ONNX")
    return tuple(sorted(chosen))


def quantization_of(path: str) -> str:
    """`Q4_K_M`, `F16` … as a file's name says; empty where it does not."""
    found = _QUANTIZATION.findall(path.removesuffix(".gguf"))
    return found[-1].upper() if found else ""


def folder_of(repo: str, chosen: Sequence[str], paths: Sequence[str]) -> str:
    """Where a repository's files go: its own name, lower-cased; one of several GGUF models has a folder of its own.

    So a second quantisation never changes the id of the first. The same goes for voices.
    """
    if is_voice(chosen):
        name = PurePosixPath(min(chosen)).name.removesuffix(".onnx")
        alone = sum(path.endswith(".onnx") for path in paths) == 1
        return repo.lower() if alone else f"{repo}/{_UNUSUAL.sub('-', name.lower())}".lower()
    models = {_stem(path) for path in paths if path.lower().endswith(".gguf") and not _is_projector(path)}
    weights = [path for path in chosen if path.lower().endswith(".gguf") and not _is_projector(path)]
    if not weights or len(models) == 1:
        return repo.lower()
    name = PurePosixPath(_stem(weights[0])).name
    return f"{repo}/{_UNUSUAL.sub('-', name.lower())}".lower()


def is_voice(chosen: Sequence[str]) -> bool:
    """Whether the files are one of Piper's voices, wherever its repository keeps it."""
    return len(chosen) == 2 and max(chosen) == f"{min(chosen)}.json" and min(chosen).endswith(".onnx")


def _named(paths: Sequence[str], filename: str) -> tuple[str, ...]:
    if filename not in paths:
        raise BadWish(f"the repository has no file {filename!r}")
    chosen = {filename}
    if filename.lower().endswith(".gguf"):
        return tuple(sorted(chosen | set(_parts_of(filename, paths)) | _projector_for(paths)))
    if filename.endswith(".safetensors") and "/" not in filename:
        # What stands beside it, but not what says that the model is made of other files.
        beside_it = {path for path in _small(paths) if not path.endswith(_INDEX) and path != _PIPELINE}
        return tuple(sorted(chosen | beside_it))
    beside = f"{filename}.json"  # a Piper voice has its settings there
    return tuple(sorted(chosen | ({beside} & set(paths))))


def _gguf(ggufs: Sequence[str], quantization: str) -> tuple[str, ...]:
    models: dict[str, list[str]] = {}
    for path in ggufs:
        if not _is_projector(path):
            models.setdefault(_stem(path), []).append(path)
    fitting = {
        stem: parts
        for stem, parts in models.items()
        if not quantization or quantization_of(stem) == quantization.upper().replace("-", "_")
    }
    if len(fitting) != 1:
        raise BadWish(_which_one(sorted(fitting or models), quantization if not fitting else ""))
    stem, parts = fitting.popitem()
    if split := _SPLIT.fullmatch(parts[0]):
        parts = list(_parts_of(parts[0], ggufs))
        if len(parts) != int(split["count"]):
            raise BadWish(f"the repository has {len(parts)} of the {int(split['count'])} parts of {stem}")
    return tuple(sorted({*parts, *_projector_for(ggufs)}))


def _which_one(stems: Sequence[str], missing: str) -> str:
    shown = ", ".join(quantization_of(stem) or PurePosixPath(stem).name for stem in stems[:SHOWN])
    more = f" and {len(stems) - SHOWN} more" if len(stems) > SHOWN else ""
    if not stems:
        return "the repository holds nothing but a projector (mmproj)"
    if missing:
        return f"the repository has no {missing}: there is {shown}{more}"
    return f"the repository has several models, specify a filename or a quantization: {shown}{more}"


def _stem(path: str) -> str:
    split = _SPLIT.fullmatch(path)
    return split["stem"] if split else path[: -len(".gguf")]


def _parts_of(path: str, paths: Sequence[str]) -> list[str]:
    """All parts of a split file, from any one of them."""
    stem = _stem(path)
    return [other for other in paths if other.lower().endswith(".gguf") and _stem(other) == stem]


def _is_projector(path: str) -> bool:
    return PurePosixPath(path).name.lower().startswith("mmproj")


def _projector_for(paths: Sequence[str]) -> set[str]:
    """The file that lets a model see, if there is one; of several the one in F16, which every engine reads."""
    found = sorted(path for path in paths if path.lower().endswith(".gguf") and _is_projector(path))
    return {next((path for path in found if quantization_of(path) == "F16"), found[0])} if found else set()


def _safetensors(paths: Sequence[str]) -> set[str]:
    top = [path for path in paths if path.endswith(".safetensors") and not path.startswith(_OTHER_FORMS)]
    weights = {path for path in top if "/" not in path}
    if not weights:
        return set()
    index = [path for path in paths if path.endswith(_INDEX) and "/" not in path]
    if index:  # the same weights may stand beside these in other files
        stem = ("model" + _INDEX if "model" + _INDEX in index else index[0]).removesuffix(_INDEX)
        weights = {path for path in weights if path.startswith(f"{stem}-")} or weights
    elif len(weights) > 1:
        if "model.safetensors" not in weights:
            raise BadWish("several .safetensors files and no index: specify a filename")
        weights = {"model.safetensors"}
    needed = {"config.json"} - set(paths)
    if needed or not any(name in paths for name in _TOKENIZERS):
        raise BadWish(
            f"the repository has no {'config.json' if needed else 'tokenizer.json'}, which its safetensors need"
        )
    return weights | _small(paths)


def _small(paths: Sequence[str]) -> set[str]:
    """Settings, tokenizers and templates at the top of a repository."""
    return {path for path in paths if "/" not in path and path.endswith(_TEXT)}


def _diffusers(paths: Sequence[str]) -> set[str]:
    """A pipeline of several networks, each in its folder, in full precision or the only one there is."""
    if _PIPELINE not in paths:
        return set()
    inside = [path for path in paths if "/" in path and not path.startswith(_OTHER_FORMS)]
    weights = {path for path in inside if path.endswith(".safetensors")}
    plain = {path for path in weights if ".fp16." not in path and ".non_ema." not in path}
    if not weights:
        raise BadWish("the repository has a pipeline without safetensors")
    return (plain or weights) | {path for path in inside if path.endswith(_TEXT)} | {_PIPELINE}


def _ctranslate2(paths: Sequence[str]) -> set[str]:
    return {"model.bin"} | _small(paths) if {"model.bin", "config.json"} <= set(paths) else set()


def _onnx(paths: Sequence[str]) -> set[str]:
    found = [path for path in paths if path.endswith(".onnx")]
    plain = [path for path in found if path in {"model.onnx", "onnx/model.onnx"}]
    if not found:
        return set()
    if len(found) > 1 and not plain:
        raise BadWish(f"the repository has several ONNX files, specify a filename: {', '.join(sorted(found)[:SHOWN])}")
    weights = (plain or found)[0]
    beside = {f"{weights}.json", f"{weights}_data"} & set(paths)
    return {weights} | beside | _small(paths)
