"""Hugging Face: what a repository holds, with sizes and hashes, as a plan."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

from nodes.runtime.fetching.choosing import choose, folder_of, is_voice
from nodes.runtime.fetching.failures import BadWish, FetchFailed
from nodes.runtime.fetching.manifest import plan_of_manifest
from nodes.runtime.fetching.plan import Plan, RemoteFile, make_plan
from nodes.runtime.fetching.sources import FileSource, HubSource, ManifestSource, Source
from nodes.runtime.fetching.web import Web

_SHA1: Final = re.compile(r"[0-9a-f]{40}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def plan_of(source: Source, web: Web) -> Plan:
    """What to fetch for a source. Asks its server. Raises: FetchFailed."""
    match source:
        case HubSource():
            return _plan_of_repository(source, web)
        case ManifestSource():
            document = web.document(source.url) if source.url else source.document
            return plan_of_manifest(document, web.origins)
        case FileSource():
            name = PurePosixPath(unquote(urlsplit(source.url).path)).name
            return make_plan("", [RemoteFile(name, source.url, sha256=source.sha256)])


def _plan_of_repository(source: HubSource, web: Web) -> Plan:
    hub = web.origins.hub
    revision = quote(source.revision, safe="")
    found = web.document(f"{hub}/api/models/{source.repo}/revision/{revision}?blobs=true")
    if not isinstance(found, dict) or not isinstance(found.get("siblings"), list):
        raise FetchFailed("Hugging Face gave no list of files")
    siblings = {
        entry["rfilename"]: entry
        for entry in found["siblings"]
        if isinstance(entry, dict) and isinstance(entry.get("rfilename"), str)
    }
    chosen = choose(sorted(siblings), filename=source.filename, quantization=source.quantization)
    # The commit itself: a branch that moves while its files are fetched must not mix two models.
    commit = str(found.get("sha") or source.revision)
    files = [
        _remote_file(siblings[path], f"{hub}/{source.repo}/resolve/{quote(commit, safe='')}/{quote(path)}")
        for path in chosen
    ]
    if is_voice(chosen) or any(file.path.lower().endswith(".gguf") for file in files):
        # However the repository sorts them: such a file's folder is its model's id.
        files = [replace(file, path=PurePosixPath(file.path).name) for file in files]
    return make_plan(folder_of(source.repo, chosen, sorted(siblings)), files)


def _remote_file(entry: Mapping[str, Any], url: str) -> RemoteFile:
    lfs = entry.get("lfs") if isinstance(entry.get("lfs"), dict) else {}
    assert isinstance(lfs, dict)
    size = lfs.get("size", entry.get("size"))
    if not (size is None or (type(size) is int and size >= 0)):
        raise BadWish("Hugging Face gave a size that is none")
    sha256 = str(lfs.get("sha256", ""))
    sha1 = "" if lfs else str(entry.get("blobId", ""))  # that of a large file is its pointer's
    return RemoteFile(
        path=entry["rfilename"],
        url=url,
        size=size,
        sha256=sha256 if _SHA256.fullmatch(sha256) else "",
        git_sha1=sha1 if _SHA1.fullmatch(sha1) and size is not None else "",
    )
