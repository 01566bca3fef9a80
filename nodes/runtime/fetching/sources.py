"""What a person may ask for: a repository of Hugging Face, a URL of one, a file's URL, a manifest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from nodes.runtime.fetching.failures import BadWish
from nodes.runtime.fetching.origins import Origins, origin_of

_PART: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_REPO: Final = re.compile(rf"({_PART}/{_PART})(?::([A-Za-z0-9._-]{{1,64}}))?(?:@([A-Za-z0-9._/-]{{1,100}}))?")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for, as it was said. Empty: as the repository suggests."""

    model: str = ""
    filename: str = ""
    quantization: str = ""
    revision: str = ""
    sha256: str = ""
    manifest: Mapping[str, Any] | None = field(default=None, hash=False)

    @property
    def name(self) -> str:
        """How it is shown before its plan is known: never with a URL's query, which may be a signature."""
        said = self.model or str((self.manifest or {}).get("model_id", "")) or "manifest"
        return said.partition("?")[0][:300]


@dataclass(frozen=True, slots=True)
class HubSource:
    """A repository, and what of it. `revision` is a branch, a tag or a commit."""

    repo: str
    revision: str = "main"
    filename: str = ""
    quantization: str = ""


@dataclass(frozen=True, slots=True)
class FileSource:
    """One file somewhere else."""

    url: str
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class ManifestSource:
    """A list of files with their sizes and hashes, at a URL or given."""

    url: str = ""
    document: Mapping[str, Any] | None = field(default=None, hash=False)


Source = HubSource | FileSource | ManifestSource


def read_wish(wish: Wish, origins: Origins) -> Source:
    """What a wish means. Nothing is connected to.

    `org/repo`, `org/repo:Q4_K_M`, `org/repo@revision`, Hugging Face's page of a repository or a file, the URL of a
    `.gguf` file, the URL of a manifest (`….json`), or a manifest itself.

    Raises:
        BadWish: it is none of these.
        OriginRefused: its server is not allowed.
    """
    if wish.sha256 and not _SHA256.fullmatch(wish.sha256.lower()):
        raise BadWish("sha256 is 64 hexadecimal digits")
    if wish.manifest is not None:
        return ManifestSource(document=wish.manifest)
    text = wish.model.strip()
    for short in ("hf.co/", "huggingface.co/"):
        text = f"https://{text}" if text.startswith(short) else text
    if "://" not in text:
        return _repository(text, wish)
    origins.check(text)
    if origins.is_hub(text):
        return _page(text, wish, origins)
    path = urlsplit(text).path
    if path.endswith(".json"):
        return ManifestSource(url=text)
    if path.lower().endswith(".gguf"):
        return FileSource(text, wish.sha256.lower())
    raise BadWish("the URL leads to neither a repository, a .gguf file nor a manifest (.json)")


def _repository(text: str, wish: Wish) -> HubSource:
    match = _REPO.fullmatch(text)
    if match is None or ".." in text:
        raise BadWish("a model is named org/repository, org/repository:QUANTIZATION, or by a URL")
    repo, quantization, revision = match.groups()
    return HubSource(repo, revision or wish.revision or "main", wish.filename, wish.quantization or quantization or "")


def _page(url: str, wish: Wish, origins: Origins) -> HubSource:
    """`/org/repo`, `/org/repo/tree/<revision>`, `/org/repo/blob|resolve/<revision>/<file>`."""
    path = urlsplit(url).path
    if origin_of(url) == origin_of(origins.hub):
        path = path.removeprefix(urlsplit(origins.hub).path)  # a mirror may be a part of another server
    parts = [unquote(part) for part in PurePosixPath(path).parts[1:]]
    if len(parts) < 2:
        raise BadWish("the URL names no repository")
    source = _repository("/".join(parts[:2]), wish)
    if len(parts) >= 4 and parts[2] in {"tree", "blob", "resolve"}:
        filename = "/".join(parts[4:]) if parts[2] != "tree" else ""
        return HubSource(source.repo, parts[3], filename or source.filename, source.quantization)
    return source
