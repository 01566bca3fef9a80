"""Nodes of llmlb's own behind a real gateway. Their engines stand in, see tests/support/stand_in_engine.py."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.blackbox.conftest import MakeProduct, models
from tests.support import model_files, stand_in_engine
from tests.support.node_server import NodeServer, seen, serving_nodes
from tests.support.product import Product, wait_until

Serve = Callable[..., NodeServer]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """See `serving_nodes`."""
    with serving_nodes(stand_in_engine.install(tmp_path / "engines")) as make:
        yield make


def ask(product: Product, model: str, text: str = "hello", **more: Any) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
    return product.post("/v1/chat/completions", json=body, timeout=60)


def listed(product: Product, name: str) -> dict[str, Any]:
    nodes: list[dict[str, Any]] = product.get("/api/nodes").json()["nodes"]
    return next(node for node in nodes if node["name"] == name)


def test_a_node_is_recognised_and_gives_its_backend(product: MakeProduct, serve: Serve, tmp_path: Path) -> None:
    model_files.gguf(tmp_path / "models" / "a" / "model.gguf")
    node = serve(tmp_path / "models", gpu_backend="cuda", parallel=2)
    with product() as running:
        added = running.add_node("own", node.url)
        assert added["node_type"] == "xllm"
        assert running.get(f"/api/nodes/{added['id']}").json()["device_info"]["gpu_backend"] == "cuda"
        answer = ask(running, "a")
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["message"]["content"] == "Hello from a stand-in."


def test_what_metal_alone_can_run_never_reaches_cuda(product: MakeProduct, serve: Serve, tmp_path: Path) -> None:
    """SPEC-93536000: a hundred requests, two backends, one directory of models."""
    folder = tmp_path / "models"
    model_files.snapshot(folder / "for-metal", config={"quantization": {"group_size": 64, "bits": 4}})
    model_files.snapshot(folder / "for-cuda", config={"quantization_config": {"quant_method": "awq", "bits": 4}})
    model_files.snapshot(folder / "for-both")
    metal, cuda = (
        serve(folder, gpu_backend=backend, environment={"STAND_IN_LOG": str(tmp_path / f"{backend}.log")})
        for backend in ("metal", "cuda")
    )
    assert metal.models() == ["for-both", "for-metal"]
    assert cuda.models() == ["for-both", "for-cuda"]
    with product() as running:
        running.add_node("metal", metal.url)
        running.add_node("cuda", cuda.url)
        assert models(running) == {"for-both", "for-cuda", "for-metal"}
        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(lambda _: ask(running, "for-metal"), range(100)))
        assert Counter(answer.status_code for answer in answers) == {200: 100}
        assert {answer.headers["x-llmlb-node"] for answer in answers} == {"metal"}
        assert (
            sum(" /v1/chat/completions " in line for line in (tmp_path / "metal.log").read_text().splitlines()) == 100
        )
        assert not (tmp_path / "cuda.log").exists(), "no engine of the CUDA node was even started"
        metal.stop()
        wait_until(lambda: listed(running, "metal")["status"] == "offline", seconds=15, what="metal is offline")
        alone = ask(running, "for-metal")
        assert (alone.status_code, alone.json()["error"]["code"]) == (503, "no_capable_nodes")
        assert ask(running, "for-cuda").headers["x-llmlb-node"] == "cuda"


def test_apis_that_an_engine_does_not_speak_are_translated(product: MakeProduct, serve: Serve, tmp_path: Path) -> None:
    """MLX knows chat alone; other engines of the same node speak the others."""
    model_files.snapshot(tmp_path / "models" / "for-metal")
    node = serve(tmp_path / "models", gpu_backend="metal")
    with product() as running:
        running.add_node("own", node.url)
        said = {"model": "for-metal", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 9}
        messages = running.post(
            "/v1/messages", json=said, headers={**running.headers, "anthropic-version": "2023-06-01"}
        )
        assert messages.status_code == 200, messages.text
        assert messages.json()["content"][0]["text"] == "Hello from a stand-in."
        responses = running.post("/v1/responses", json={"model": "for-metal", "input": "hello"})
        assert responses.status_code == 200, responses.text
        assert responses.json()["output"][0]["content"][0]["text"] == "Hello from a stand-in."
        assert listed(running, "own")["excluded_models"] == []


def test_a_model_that_is_loaded_on_demand_is_waited_for(product: MakeProduct, serve: Serve, tmp_path: Path) -> None:
    model_files.gguf(tmp_path / "models" / "a" / "model.gguf")
    slow = {"STAND_IN_LOAD_SECONDS": "2"}
    node = serve(tmp_path / "models", load_wait_secs=0.1, environment=slow)
    with product() as running:
        running.add_node("own", node.url)
        answer = ask(running, "a")
        assert answer.status_code == 200, answer.text
        assert int(answer.headers["x-llmlb-attempts"]) > 1
        assert listed(running, "own")["excluded_models"] == []


def test_an_engine_killed_in_a_stream_and_a_node_restarted(product: MakeProduct, serve: Serve, tmp_path: Path) -> None:
    """An honest error event, the engine back within 5 s; and a restart, seen by the start time, lifts the exclusion."""
    model_files.gguf(tmp_path / "models" / "a" / "model.gguf")
    node = serve(tmp_path / "models")
    # A probe would bring the model back; here it must be the restart that does.
    with product(environment={"LLMLB_EXCLUSION_PROBE_SECS": "0", "LLMLB_HEALTH_CHECK_INTERVAL": "1"}) as running:
        running.add_node("own", node.url)
        assert ask(running, "a").status_code == 200
        engine = int(next(line for line in seen(node) if " start " in line).split()[-1])
        threading.Timer(0.5, os.kill, (engine, signal.SIGKILL)).start()
        broken = ask(running, "a", "slow", stream=True)
        killed = time.monotonic()
        events = [line.removeprefix("data: ") for line in broken.text.splitlines() if line.startswith("data: ")]
        assert "content" in events[0]
        assert '"error"' in events[-1]
        assert "[DONE]" not in broken.text
        wait_until(lambda: node.engine("a").get("state") == "ready", seconds=20, what="the engine is back")
        assert time.monotonic() - killed < 5
        excluded = listed(running, "own")["excluded_models"]
        assert [each["model"] for each in excluded] == ["a"]
        assert ask(running, "a").status_code == 503
        node.stop()
        node.start()
        wait_until(lambda: not listed(running, "own")["excluded_models"], seconds=15, what="the model is back")
        wait_until(lambda: ask(running, "a").status_code == 200, seconds=10, what="it is served again")
