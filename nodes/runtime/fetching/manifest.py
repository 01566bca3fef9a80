"""A manifest: a model's files with sizes and hashes, as the gateway's registry lists them (SPEC-dcaeaec4).

`{"model_id", "repo", "revision"?, "files": [{"filename" | "name", "size_bytes"?, "sha256"?, "url"?}]}`. A file
without a URL is one of `repo` at Hugging Face.
"""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import quote

from nodes.runtime.fetching.failures import BadWish
from nodes.runtime.fetching.origins import Origins
from nodes.runtime.fetching.plan import Plan, RemoteFile, make_plan

_ID: Final = re.compile(r"[a-z0-9._/-]{1,300}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_REPO: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")


def plan_of_manifest(document: Any, origins: Origins) -> Plan:
    """The plan that a manifest is.

    Raises:
        BadWish: it is no manifest, or has a path, a hash or a size that cannot be.
        OriginRefused: one of its URLs leads where nothing is fetched from.
    """
    if not isinstance(document, dict) or not isinstance(document.get("files"), list):
        raise BadWish("a manifest is an object with a list of files")
    model_id = str(document.get("model_id", "")).lower()
    if not _ID.fullmatch(model_id):
        raise BadWish("a manifest's model_id has the characters a-z 0-9 - _ . / alone")
    repo, revision = str(document.get("repo") or ""), str(document.get("revision") or "main")
    if repo and not _REPO.fullmatch(repo):
        raise BadWish("a manifest's repo is org/repository")
    base = f"{origins.hub}/{repo}/resolve/{quote(revision, safe='')}" if repo else ""
    return make_plan(model_id, [_file(entry, base, origins) for entry in document["files"]])


def _file(entry: Any, base: str, origins: Origins) -> RemoteFile:
    if not isinstance(entry, dict):
        raise BadWish("a manifest's file is an object")
    path = str(entry.get("filename") or entry.get("name") or "")
    url = str(entry.get("url") or (f"{base}/{quote(path)}" if base else ""))
    size, sha256 = entry.get("size_bytes"), str(entry.get("sha256") or "").lower()
    if not url:
        raise BadWish(f"the manifest says neither a repo nor a url for {path[:80]!r}")
    if not (size is None or (type(size) is int and size >= 0)):
        raise BadWish(f"the manifest gives {path[:80]!r} a size that is none")
    if sha256 and not _SHA256.fullmatch(sha256):
        raise BadWish(f"the manifest gives {path[:80]!r} a sha256 that is none")
    origins.check(url)
    return RemoteFile(path, url, size, sha256)
