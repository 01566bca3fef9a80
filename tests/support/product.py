"""The real product as a child process: `python manage.py serve` with a data directory and a port of its own."""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import httpx

ROOT: Final = Path(__file__).resolve().parent.parent.parent
START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(reached: Callable[[], Any], *, seconds: float, what: str) -> Any:
    """Poll until `reached` returns something true, and return that. Raises AssertionError naming `what` otherwise."""
    deadline = time.monotonic() + seconds
    while True:
        if result := reached():
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.05)


class Product:
    """A server under test. Use as a context manager, or `start` and `stop`.

    `key` is an API key with every permission. `environment` adds to (or with None removes from) what the server sees.
    `host` is the address that it listens on; `prefix` is put before its command (to run it somewhere else).
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        command: tuple[str, ...] = ("serve",),
        environment: Mapping[str, str | None] | None = None,
        host: str = "127.0.0.1",
        prefix: tuple[str, ...] = (),
    ) -> None:
        self.data_dir = data_dir
        self.host = host
        self._prefix = prefix
        self.port = port or free_port()
        self.key = f"sk_{secrets.token_urlsafe(48)}"
        self.lines: list[str] = []
        self.seconds_to_ready = 0.0
        self._command = command
        self._environment = environment or {}
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def __enter__(self) -> Product:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def process(self) -> subprocess.Popen[str]:
        assert self._process is not None, "not started"
        return self._process

    @property
    def output(self) -> str:
        """Standard output and error so far."""
        return "".join(self.lines)

    @property
    def password(self) -> str:
        """The first administrator's, as printed at the first start."""
        found = re.search(r"Password\s+(\S+)", self.output)
        assert found is not None, f"no password was printed:\n{self.output}"
        return found.group(1)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def environment(self) -> dict[str, str]:
        ours = {
            "LLMLB_DATA_DIR": str(self.data_dir),
            "LLMLB_HOST": self.host,
            "LLMLB_PORT": str(self.port),
            "LLMLB_BOOTSTRAP_API_KEY": self.key,
            "PYTHONUNBUFFERED": "1",
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("LLMLB_", "DJANGO_"))}
        merged: dict[str, str | None] = {**inherited, **ours, **self._environment}
        return {name: value for name, value in merged.items() if value is not None}

    def manage(self, *arguments: str, seconds: float = START_SECONDS) -> subprocess.CompletedProcess[str]:
        """Run another `manage.py` command with this product's environment, to its end."""
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def launch(self) -> Product:
        """Start the process without waiting for it."""
        self._process = subprocess.Popen(
            [*self._prefix, sys.executable, "manage.py", *self._command],
            cwd=ROOT,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()
        return self

    def start(self) -> Product:
        """Start, and return when the server says that it is ready."""
        began = time.monotonic()
        self.launch()
        wait_until(self._ready_or_dead, seconds=START_SECONDS, what=f"the server is ready; it said:\n{self.output}")
        assert self.process.poll() is None, f"the server ended with {self.process.returncode}:\n{self.output}"
        self.seconds_to_ready = time.monotonic() - began
        return self

    def stop(self) -> int:
        """SIGTERM, and wait. Returns the exit code; does nothing to a server that has already ended."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def end(self) -> None:
        """Make certain that nothing runs, however the test ended."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def kill(self) -> int:
        self.process.kill()
        return self.wait()

    def wait(self) -> int:
        try:
            code = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the server did not stop:\n{self.output}") from None
        if self._reader is not None:
            self._reader.join(5)
        return code

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One call with the key, on a connection of its own."""
        options.setdefault("headers", self.headers)
        options.setdefault("timeout", 30)
        with httpx.Client(trust_env=False) as client:
            return client.request(method, f"{self.url}{path}", **options)

    def add_node(self, name: str, base_url: str) -> dict[str, Any]:
        answer = self.post("/api/nodes", json={"name": name, "base_url": base_url})
        assert answer.status_code == 201, answer.text
        node: dict[str, Any] = answer.json()
        return node

    def is_ready(self) -> bool:
        try:
            return self.get("/readyz", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    def _ready_or_dead(self) -> bool:
        return self.process.poll() is not None or self.is_ready()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self.lines.append(line)
