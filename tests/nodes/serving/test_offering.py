"""What a node offers, and what it says of the rest and of itself."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from llmlb_site import __version__
from tests.nodes.serving.conftest import MakeNode
from tests.support import model_files
from tests.support.node_server import NodeServer, aged
from tests.support.product import ROOT, wait_until


@pytest.fixture
def models_dir(tmp_path: Path) -> Path:
    """One good model beside broken neighbours."""
    folder = tmp_path / "models"
    model_files.gguf(folder / "good" / "model.gguf")
    model_files.gguf(folder / "unknown" / "model.gguf", architecture="frobnicator")
    model_files.snapshot(folder / "no-shard", shards=2, without_shards=[2])
    model_files.snapshot(folder / "empty", architectures=())
    cut = model_files.gguf(folder / "cut" / "model.gguf")
    cut.write_bytes(cut.read_bytes()[:-1])
    (folder / "no-config").mkdir()
    model_files.safetensors(folder / "no-config" / "model.safetensors")
    return folder


def test_the_good_model_alone_is_offered_and_every_other_has_its_reason(models_dir: Path, serve: MakeNode) -> None:
    node = serve(models_dir)
    assert node.models() == ["good"]
    reasons = node.reasons()
    assert reasons.pop("good") == ""
    assert set(reasons) == {"unknown", "no-shard", "empty", "cut", "no-config"}
    assert "frobnicator" in reasons["unknown"]
    assert all(reasons.values())
    for model in reasons:
        refused = node.chat(model)
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
        assert reasons[model] in refused.json()["error"]["message"]


def test_a_model_that_comes_or_goes_is_seen_without_being_asked_for(tmp_path: Path, serve: MakeNode) -> None:
    folder = tmp_path / "models"
    model_files.gguf(folder / "first" / "model.gguf")
    node = serve(folder)
    model_files.gguf(folder / "second" / "model.gguf")
    aged(folder)
    wait_until(lambda: node.models() == ["first", "second"], seconds=10, what="the new model is listed")
    (folder / "first" / "model.gguf").unlink()
    wait_until(lambda: node.models() == ["second"], seconds=10, what="the model that is gone is not listed")


def test_a_key_is_wanted_everywhere_where_one_is_set(models_dir: Path, serve: MakeNode) -> None:
    node = serve(models_dir, api_key="a secret of the node")
    for path in ("/v1/models", "/api/system", "/api/logs", "/metrics", "/v1/chat/completions"):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"X-API-Key": "wrong"}):
            refused = node.request("GET", path, headers=headers)
            assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key"), path
    assert node.request("GET", "/v1/models", headers={"X-API-Key": node.key}).status_code == 200
    assert node.models() == ["good"]
    assert node.request("GET", "/livez", headers={}).text == "ok"


def test_what_is_asked_wrongly_is_refused(models_dir: Path, serve: MakeNode) -> None:
    node = serve(models_dir)
    assert _refusal(node.post("/v1/embeddings", json={"model": "good", "input": "x"})) == (
        400,
        "model_capability_mismatch",
    )
    assert _refusal(node.post("/v1/chat/completions", content=b"no json")) == (400, "invalid_json")
    assert _refusal(node.post("/v1/chat/completions", json={"model": 7})) == (400, "missing_parameter")
    assert _refusal(node.post("/v1/no-such-api", json={})) == (404, "unknown_path")
    assert _refusal(node.request("GET", "/v1/chat/completions")) == (405, "method_not_allowed")
    assert _refusal(node.request("DELETE", "/api/system")) == (405, "method_not_allowed")
    assert _refusal(node.post("/api/models/load", json={})) == (400, "missing_parameter")
    assert _refusal(node.post("/api/models/unload", json={"model": "nobody"})) == (404, "model_not_found")


def _refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_what_it_tells_has_the_shape_that_is_documented(models_dir: Path, serve: MakeNode) -> None:
    node = serve(models_dir)
    assert node.chat("good").status_code == 200
    for path, example in _documented().items():
        told = node.get(path.partition("?")[0])
        assert _keys(told) >= _keys(example) - DEPENDS_ON_THE_MACHINE, path
        assert _keys(told) <= _keys(example), path


# Lists that are empty here, because the machine has no GPU.
DEPENDS_ON_THE_MACHINE = frozenset(
    f"{place}.{name}"
    for place in ("devices", "gpu.devices")
    for name in ("index", "name", "total_memory_bytes", "used_memory_bytes", "usage", "capability_score")
)


def _documented() -> dict[str, Any]:
    """The JSON examples of docs/node.md, by the path of their heading."""
    text = (ROOT / "docs" / "node.md").read_text()
    found = re.findall(r"^### `GET (\S+)`\n(?:(?!^###).)*?```json\n(.*?)```", text, re.MULTILINE | re.DOTALL)
    examples = {path: json.loads(example) for path, example in found}
    assert {"/v1/models", "/api/system", "/api/health", "/api/ps", "/api/models"} <= examples.keys()
    return examples


def _keys(document: Any, place: str = "") -> set[str]:
    """Every member's path, those of lists together."""
    if isinstance(document, list):
        return set().union(*(_keys(item, place) for item in document))
    if not isinstance(document, dict):
        return set()
    names = {f"{place}.{name}".lstrip(".") for name in document}
    return names.union(*(_keys(value, f"{place}.{name}".lstrip(".")) for name, value in document.items()))


def test_marks_by_which_a_gateway_knows_it(models_dir: Path, serve: MakeNode) -> None:
    node = serve(models_dir, gpu_backend="rocm", parallel=3)
    system = node.get("/api/system")
    assert system["xllm_version"] == __version__
    assert (system["gpu_backend"], system["max_concurrency"]) == ("rocm", 3)
    answer = node.request("GET", "/v1/models")
    assert answer.headers["server"].startswith("xllm")
    assert {model["owned_by"] for model in answer.json()["data"]} == {"xllm"}
    assert node.get("/v1/models/good")["id"] == "good"
    assert node.request("GET", "/v1/models/empty").status_code == 404


def test_logs_are_the_newest_lines_and_metrics_count(models_dir: Path, serve: MakeNode) -> None:
    node = serve(models_dir)
    node.chat("good")
    node.chat("cut")
    newest = node.get("/api/logs?tail=1")["entries"]
    assert [entry["message"].split()[:3] for entry in newest] == [["/v1/chat/completions", "cut", "404"]]
    assert len(node.get("/api/logs?tail=100000")["entries"]) > 3
    assert len(node.get("/api/logs?tail=0")["entries"]) == 1
    assert len(node.get("/api/logs?tail=nonsense")["entries"]) > 3
    metrics = node.request("GET", "/metrics").text
    assert 'llmlb_node_requests_total{path="/v1/chat/completions",status="200"} 1.0' in metrics
    assert "llmlb_node_models_executable 1.0" in metrics
    assert "llmlb_node_models_refused 5.0" in metrics
    assert "llmlb_node_engines 1.0" in metrics


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"LLM_RUNTIME_PARALLEL": "0"}, "LLM_RUNTIME_PARALLEL=0: must be a number from 1 to 256."),
        ({"LLM_RUNTIME_GPU_BACKEND": "vulkan"}, "LLM_RUNTIME_GPU_BACKEND=vulkan: must be one of auto, metal"),
        ({"LLM_RUNTIME_API_KEY_FILE": "/no/such/file"}, "LLM_RUNTIME_API_KEY_FILE=/no/such/file"),
        ({"HF_BASE_URL": "nonsense"}, "HF_BASE_URL"),
    ],
)
def test_a_setting_that_cannot_be_used_stops_the_start(tmp_path: Path, environment: dict[str, str], says: str) -> None:
    node = NodeServer(tmp_path, environment=environment).launch()
    assert node.process.wait(20) == 1
    wait_until(lambda: says in node.output, seconds=5, what=f"it says {says}; it said {node.output}")
    assert "Traceback" not in node.output


def test_a_directory_that_is_not_there_and_a_port_that_is_taken_stop_the_start(
    models_dir: Path, serve: MakeNode
) -> None:
    missing = NodeServer(models_dir / "nowhere").launch()
    assert missing.process.wait(20) == 1
    wait_until(lambda: "there is no such directory" in missing.output, seconds=5, what="it says so")
    first = serve(models_dir)
    second = NodeServer(models_dir, environment={"LLM_RUNTIME_PORT": str(first.port)}).launch()
    assert second.process.wait(20) == 1
    wait_until(lambda: "is already in use" in second.output, seconds=5, what="it says so")


def test_it_needs_neither_a_database_nor_settings_of_the_gateway(models_dir: Path, serve: MakeNode) -> None:
    data_dir = models_dir.parent / "data"
    broken = {"LLMLB_DATA_DIR": str(data_dir), "LLMLB_DATABASE_URL": "postgres://nobody@127.0.0.1:1/none"}
    node = serve(models_dir, environment=broken)
    assert node.models() == ["good"]
    assert not data_dir.exists()
