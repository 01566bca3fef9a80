"""`make demo`: llmlb from end to end: three of its own nodes with real models, llmlb in front, and a little traffic.

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
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

import httpx

if __name__ == "__main__":  # run as a file: its folder is on the path, the checkout is not
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts import demo_models

ROOT: Final = Path(__file__).resolve().parent.parent
DATA_DIR: Final = ROOT / "var" / "demo"
MODELS_DIR: Final = ROOT / "var" / "demo-models"
CHAT_MODEL: Final = "smollm2-135m-instruct"
EMBEDDING_MODEL: Final = "all-minilm-l6-v2"
HEARING_MODEL: Final = "whisper-tiny.en"
VOICE: Final = "en_us-joe-medium"
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
    """A demo node: `manage.py node serve` on `port`, with these models."""

    name: str
    port: int
    folder: Path
    models: tuple[str, ...]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def running(self) -> AbstractContextManager[subprocess.Popen[bytes]]:
        """Its process, for as long as the context lasts."""
        arguments = ("manage.py", "node", "serve", "--models", str(self.folder), "--port", str(self.port))
        # One thread an engine: several of them share a small machine.
        settings = {"PARALLEL": "2", "THREADS": "1", "LOAD_WAIT_SECS": "20", "LOG_LEVEL": "warning"}
        return child(*arguments, environment={f"LLM_RUNTIME_{name}": value for name, value in settings.items()})


def demo_nodes() -> tuple[Node, ...]:
    """Two nodes that chat, and one that hears, speaks and embeds. Their models are laid out if they are not yet."""
    chat, media = demo_models.lay_out(MODELS_DIR)
    first, second, third = (free_port() for _ in range(3))
    return (
        Node("chat-1", first, chat, (CHAT_MODEL,)),
        Node("chat-2", second, chat, (CHAT_MODEL,)),
        Node("media", third, media, (EMBEDDING_MODEL, VOICE, HEARING_MODEL)),
    )


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    port = int(os.environ.get("LLMLB_PORT", "32768"))
    password, key = f"demo-{secrets.token_hex(4)}", f"sk_{secrets.token_urlsafe(48)}"
    shutil.rmtree(DATA_DIR, ignore_errors=True)
    try:
        with ExitStack() as running:
            nodes = demo_nodes()
            pids = {node.name: running.enter_context(node.running()).pid for node in nodes}
            for node in nodes:
                wait_for_models(node)
            server = running.enter_context(child("manage.py", "serve", environment=settings(port, password, key)))
            client = running.enter_context(gateway_client(port, key))
            wait_for(f"http://127.0.0.1:{port}/readyz", "llmlb", server)
            register(client, nodes)
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


def wait_for_models(node: Node) -> None:
    """Until it lists all of its models: what was just laid out is not taken for whole at once."""
    wait_for(f"{node.url}/livez", node.name)
    deadline = time.monotonic() + START_SECONDS
    while not set(node.models) <= {model["id"] for model in get(f"{node.url}/v1/models")["data"]}:
        if time.monotonic() > deadline:
            sys.exit(f"demo: {node.name} does not list its models: {get(f'{node.url}/api/models')}")
        time.sleep(0.2)


def get(url: str) -> Any:
    return httpx.get(url, timeout=10, trust_env=False).raise_for_status().json()


def register(client: httpx.Client, nodes: tuple[Node, ...]) -> None:
    for node in nodes:
        answer = client.post("/api/nodes", json={"name": node.name, "base_url": node.url})
        if answer.status_code != httpx.codes.CREATED:
            sys.exit(f"demo: {node.name} was not registered: {answer.text}")


def send(client: httpx.Client, number: int) -> None:
    """One request; of six, one is an embedding, and one is spoken and heard again. Every other chat is streamed."""
    text = PROMPTS[number % len(PROMPTS)]
    if number % 6 == 2:
        client.post("/v1/embeddings", json={"model": EMBEDDING_MODEL, "input": text})
        return
    if number % 6 == 5:
        sound = client.post("/v1/audio/speech", json={"model": VOICE, "voice": "joe", "input": text}).content
        form = {"model": HEARING_MODEL, "response_format": "text"}
        client.post("/v1/audio/transcriptions", data=form, files={"file": ("speech.mp3", sound, "audio/mpeg")})
        return
    body: dict[str, Any] = {
        "model": CHAT_MODEL,
        "max_tokens": 32,
        "stream": number % 2 == 0,
        "messages": [{"role": "user", "content": text}],
    }
    client.post("/v1/chat/completions", json=body)


def keep_sending(client: httpx.Client, server: subprocess.Popen[bytes]) -> None:
    """A few at once, so that there is something to see, and then one from time to time."""
    for number in count():
        try:
            server.wait(SECONDS_BETWEEN_REQUESTS if number >= 6 else 0.1)
        except subprocess.TimeoutExpired:
            try:
                send(client, number)
            except httpx.HTTPError as error:
                print(f"demo: a request failed: {type(error).__name__}", flush=True)
        else:
            sys.exit(f"demo: llmlb ended with exit code {server.returncode}")


def welcome(url: str, password: str, key: str, pids: dict[str, int]) -> str:
    return f"""
The demo is running: llmlb in front of two nodes that chat and one that hears, speaks and embeds. Ctrl-C stops it.

  Overview   {url}/
  Nodes      {url}/nodes/
  History    {url}/history/
  Admin      {url}/admin/
  Sign in as admin, password {password}

Talk to it as you would to OpenAI:

  curl -N {url}/v1/chat/completions -H 'Authorization: Bearer {key}' \\
    -H 'Content-Type: application/json' \\
    -d '{{"model": "{CHAT_MODEL}", "stream": true, "messages": [{{"role": "user", "content": "Hello!"}}]}}'

Speech, heard again:

  curl {url}/v1/audio/speech -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\
    -d '{{"model": "{VOICE}", "voice": "joe", "input": "Hello from llmlb."}}' -o hello.mp3
  curl {url}/v1/audio/transcriptions -H 'Authorization: Bearer {key}' -F model={HEARING_MODEL} -F file=@hello.mp3

Kill a node and watch requests go round it:  kill -9 {pids["chat-1"]}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
