"""Manifests say what to fetch, and nothing that they say leads out of the models directory or to another server."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from nodes.runtime.fetching.progress import PullState
from tests.nodes.fetching.conftest import REPO, WEIGHTS, Pull, in_place
from tests.support.file_server import FileServer


def manifest_of(hub: FileServer, **changes: Any) -> dict[str, Any]:
    hub.add("/files/a.gguf", WEIGHTS)
    file = {"filename": "a.gguf", "size_bytes": len(WEIGHTS), "url": f"{hub.url}/files/a.gguf"}
    file["sha256"] = hashlib.sha256(WEIGHTS).hexdigest()
    return {"model_id": "team/tuned", "files": [{**file, **changes}]}


def test_a_manifest_says_what_to_fetch(hub: FileServer, pull: Pull, models: Path) -> None:
    assert pull("", manifest=manifest_of(hub)).model == "team/tuned"
    assert in_place(models) == {"team/tuned/a.gguf"}


def test_a_manifests_file_without_a_url_is_one_of_its_repository(hub: FileServer, pull: Pull, models: Path) -> None:
    hub.add(f"/{REPO}/resolve/main/a.gguf", WEIGHTS)
    manifest = {**manifest_of(hub, url=None), "repo": REPO}
    assert pull("", manifest=manifest).status is PullState.SUCCESS


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"filename": "../../etc/passwd"}, "not a path"),
        ({"filename": "/etc/passwd"}, "not a path"),
        ({"filename": ".pulls/x"}, "not a path"),
        ({"filename": "a\\b.gguf"}, "not a path"),
        ({"filename": "a\0.gguf"}, "not a path"),
        ({"url": "https://example.org/a.gguf"}, "https://example.org is not an allowed origin"),
        ({"url": "file:///etc/passwd"}, "begins with https://"),
        ({"url": ""}, "neither a repo nor a url"),
        ({"sha256": "abc"}, "a sha256 that is none"),
        ({"sha256": "0" * 64}, "another hash"),
        ({"size_bytes": 5}, "5 were promised"),
        ({"size_bytes": -5}, "a size that is none"),
    ],
)
def test_a_manifest_that_cannot_be_is_refused(
    hub: FileServer, pull: Pull, models: Path, changes: dict[str, Any], says: str
) -> None:
    done = pull("", manifest=manifest_of(hub, **changes))
    assert done.status is PullState.FAILED
    assert says in done.error
    assert in_place(models) == set()
