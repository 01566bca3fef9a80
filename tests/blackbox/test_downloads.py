"""A model on its way: ordered at the gateway, fetched by a node of llmlb's own, served, and deleted again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.blackbox.conftest import MakeProduct, models
from tests.support import model_files, stand_in_engine
from tests.support.file_server import FileServer
from tests.support.node_server import NodeServer, aged
from tests.support.product import Product, wait_until


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FileServer]:
    model = model_files.gguf(tmp_path / "hub" / "tiny.Q4_0.gguf")
    with FileServer().running() as server:
        server.add_repository("Org/Tiny-GGUF", {"tiny.Q4_0.gguf": model.read_bytes()}, small=0)
        yield server


@pytest.fixture
def node(tmp_path: Path, hub: FileServer) -> Iterator[NodeServer]:
    """With one model: a node that lists none is refused at registration."""
    folder = tmp_path / "models"
    model_files.gguf(folder / "first" / "model.gguf")
    programs = stand_in_engine.install(tmp_path / "engines")
    with NodeServer(aged(folder), programs=programs, environment={"HF_BASE_URL": hub.url}) as running:
        yield running


def newest(product: Product, node: int) -> dict[str, Any]:
    found: dict[str, Any] = product.get(f"/api/nodes/{node}/download/progress").json()["tasks"][0]
    return found


def over(product: Product, node: int) -> dict[str, Any] | None:
    task = newest(product, node)
    return task if task["status"] in {"success", "failed"} else None


def test_a_model_is_fetched_served_and_deleted(
    product: MakeProduct, node: NodeServer, hub: FileServer, tmp_path: Path
) -> None:
    with product() as running:
        own = running.add_node("own", node.url)["id"]
        path = f"/api/nodes/{own}/download"
        first = running.post(path, json={"hf_repo": "Org/Tiny-GGUF"})
        again = running.post(path, json={"hf_repo": "Org/Tiny-GGUF"})
        assert (first.status_code, again.json()["task_id"]) == (202, first.json()["task_id"])
        task = wait_until(lambda: over(running, own), seconds=20, what="the download is over")
        assert (task["status"], task["error"], task["progress"]) == ("success", "", 1.0)
        wait_until(lambda: "org/tiny-gguf" in models(running), seconds=15, what="the model is routed")
        assert hub.file("Org/Tiny-GGUF", "tiny.Q4_0.gguf").asked == 1

        body = {"model": "org/tiny-gguf", "messages": [{"role": "user", "content": "hello"}]}
        answer = running.post("/v1/chat/completions", json=body, timeout=60)
        assert answer.status_code == 200, answer.text

        logs = running.get(f"/api/nodes/{own}/logs?tail=1000").json()["entries"]
        assert any("pulled: model=org/tiny-gguf" in entry["message"] for entry in logs)

        gone = running.post(f"/api/nodes/{own}/models/delete", json={"model": "org/tiny-gguf"})
        assert gone.status_code == 204, gone.text
        assert models(running) == {"first"}
        assert not (tmp_path / "models" / "org").exists()


def test_what_the_node_cannot_fetch_is_told_in_its_words(product: MakeProduct, node: NodeServer) -> None:
    with product() as running:
        own = running.add_node("own", node.url)["id"]
        running.post(f"/api/nodes/{own}/download", json={"model": "https://example.org/model.gguf"})
        task = wait_until(lambda: over(running, own), seconds=20, what="the download is over")
        assert task["status"] == "failed"
        assert task["error"].startswith("https://example.org is not an allowed origin")
