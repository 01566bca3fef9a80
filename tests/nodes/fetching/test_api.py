"""Pulls and deletion over the API of a node that runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.nodes.fetching.conftest import WEIGHTS
from tests.support import model_files, stand_in_engine
from tests.support.file_server import FileServer
from tests.support.node_server import NodeServer, aged
from tests.support.product import wait_until

KEY = "a key of this node"


@pytest.fixture(scope="module")
def hub() -> Iterator[FileServer]:
    with FileServer().running() as server:
        yield server


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, hub: FileServer) -> Iterator[NodeServer]:
    top = tmp_path_factory.mktemp("node")
    model_files.gguf(top / "models" / "first" / "model.gguf")
    programs = stand_in_engine.install(top / "engines")
    environment = {"HF_BASE_URL": hub.url}
    with NodeServer(aged(top / "models"), programs=programs, environment=environment, api_key=KEY) as running:
        yield running


def call(node: NodeServer, method: str, path: str, body: Any = None, *, key: str = KEY) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with httpx.Client(base_url=node.url, trust_env=False, headers=headers, timeout=30) as client:
        return client.request(method, path, json=body)


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_a_pull_from_its_beginning_to_its_end(node: NodeServer, hub: FileServer) -> None:
    hub.add_repository("org/second", {"second.gguf": WEIGHTS}, slow=0.05)
    begun = call(node, "POST", "/api/pulls", {"model": "org/second"})
    again = call(node, "POST", "/api/pulls", {"model": "org/second"})
    assert (begun.status_code, again.json()["task_id"]) == (202, begun.json()["task_id"])
    path = f"/api/pulls/{begun.json()['task_id']}"
    wait_until(lambda: call(node, "GET", path).json()["status"] == "success", seconds=20, what="the pull is over")
    task = call(node, "GET", "/api/pulls").json()["pulls"][0]
    assert (task["model"], task["progress"], task["total_bytes"]) == ("org/second", 1.0, len(WEIGHTS))


def test_a_pull_is_cancelled(node: NodeServer, hub: FileServer) -> None:
    hub.add_repository("org/slow", {"slow.gguf": WEIGHTS}, slow=0.5)
    task = call(node, "POST", "/api/pulls", {"model": "org/slow"}).json()["task_id"]
    assert call(node, "DELETE", f"/api/pulls/{task}").status_code == 200
    done = lambda: call(node, "GET", f"/api/pulls/{task}").json()["status"] == "cancelled"  # noqa: E731  # used once
    wait_until(done, seconds=10, what="the pull is cancelled")


def test_a_model_is_deleted_with_its_folder(node: NodeServer) -> None:
    model_files.gguf(node.models_dir / "org" / "third" / "model.gguf")
    aged(node.models_dir)
    call(node, "POST", "/api/models/refresh")
    answer = call(node, "DELETE", "/api/models/org/third")
    assert (answer.status_code, answer.json()["deleted"]) == (200, "org/third")
    assert answer.json()["freed_bytes"] > 0
    assert not (node.models_dir / "org" / "third").exists()
    wait_until(
        lambda: call(node, "GET", "/api/models/org/third").status_code == 404, seconds=5, what="it is listed no more"
    )


def test_a_model_that_lies_elsewhere_is_not_deleted(node: NodeServer, tmp_path: Path) -> None:
    outside = model_files.gguf(tmp_path / "elsewhere" / "model.gguf")
    (node.models_dir / "linked").symlink_to(outside.parent)
    aged(node.models_dir)
    call(node, "POST", "/api/models/refresh")
    assert call(node, "DELETE", "/api/models/linked").status_code == 409
    assert outside.is_file()
    (node.models_dir / "linked").unlink()


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "invalid_pull"),
        ({"model": 5}, 400, "invalid_pull"),
        ({"model": "nosuch"}, 400, "invalid_pull"),
        ({"manifest": []}, 400, "invalid_pull"),
        ({"model": "https://example.org/a.gguf"}, 403, "origin_refused"),
        ([], 400, "invalid_json"),
    ],
)
def test_what_cannot_be_pulled_is_refused(node: NodeServer, body: Any, status: int, code: str) -> None:
    assert refusal(call(node, "POST", "/api/pulls", body)) == (status, code)


def test_what_is_not_there_is_404(node: NodeServer) -> None:
    assert refusal(call(node, "GET", "/api/pulls/none")) == (404, "unknown_pull")
    assert refusal(call(node, "DELETE", "/api/pulls/none")) == (404, "unknown_pull")
    assert refusal(call(node, "DELETE", "/api/models/org/none")) == (404, "model_not_found")
    assert call(node, "DELETE", "/api/models/../../etc/passwd").status_code == 404


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/api/pulls"), ("GET", "/api/pulls"), ("DELETE", "/api/models/first")]
)
def test_nobody_does_this_without_the_key(node: NodeServer, method: str, path: str) -> None:
    assert call(node, method, path, key="").status_code == 401
    assert call(node, method, path, key="wrong").status_code == 401
    assert (node.models_dir / "first" / "model.gguf").is_file()
