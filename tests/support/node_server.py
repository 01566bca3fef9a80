"""A node of llmlb's own as a process: `python manage.py node serve` with a directory of models."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import httpx

from tests.support.product import ROOT, free_port, wait_until

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 45.0


@contextmanager
def serving_nodes(programs: Path) -> Iterator[Callable[..., NodeServer]]:
    """`serve(models_dir, idle_secs=1, …)`: a node that is up, with a log of what its engines saw: see `seen`."""
    with ExitStack() as stack:

        def make(models_dir: Path, *, environment: Mapping[str, str] | None = None, **settings: Any) -> NodeServer:
            aged(models_dir)
            log = {"STAND_IN_LOG": str(_log_of(models_dir))}
            node = NodeServer(models_dir, programs=programs, environment={**log, **(environment or {})}, **settings)
            return stack.enter_context(node)

        yield make


def seen(node: NodeServer) -> list[str]:
    """What the node's engines have noted, line by line."""
    path = _log_of(node.models_dir)
    return path.read_text().splitlines() if path.exists() else []


def _log_of(models_dir: Path) -> Path:
    return models_dir.parent / f"{models_dir.name}.log"


def aged(folder: Path) -> Path:
    """As if every file had been there for a minute: what was just written is not listed yet."""
    then = time.time() - 60
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (then, then))
    return folder


class NodeServer:
    """A node that is up. Use as a context manager. Its port stays the same over `stop` and `start`.

    `programs` is a folder of executables that come first on its path; `settings` are LLM_RUNTIME_… without that.
    """

    def __init__(
        self,
        models_dir: Path,
        *,
        programs: Path | None = None,
        environment: Mapping[str, str] | None = None,
        **settings: object,
    ) -> None:
        self.models_dir = models_dir
        self.port = free_port()
        self.lines: list[str] = []
        own = {f"LLM_RUNTIME_{name.upper()}": str(value) for name, value in settings.items()}
        path = os.environ["PATH"] if programs is None else f"{programs}{os.pathsep}{os.environ['PATH']}"
        self._environment = {"LLM_RUNTIME_PORT": str(self.port), "PATH": path, **own, **(environment or {})}
        self.key = str(settings.get("api_key", ""))
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> NodeServer:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._process is not None and self._process.poll() is None:
            self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def process(self) -> subprocess.Popen[str]:
        assert self._process is not None, "not started"
        return self._process

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def launch(self) -> NodeServer:
        """Start the process without waiting for it."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("LLM_RUNTIME_")}
        self._process = subprocess.Popen(
            [sys.executable, "manage.py", "node", "serve", "--models", str(self.models_dir)],
            cwd=ROOT,
            env={**inherited, "PYTHONUNBUFFERED": "1", **self._environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        threading.Thread(target=self._read, args=(self._process,), daemon=True).start()
        return self

    def start(self) -> NodeServer:
        """Start, and return when it answers."""
        self.launch()
        wait_until(self._up_or_dead, seconds=START_SECONDS, what="the node answers")
        assert self.process.poll() is None, f"the node ended with {self.process.returncode}:\n{self.output}"
        return self

    def stop(self) -> int:
        """SIGTERM, and wait. Returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"the node did not stop:\n{self.output}") from None

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One call, with the key if there is one, on a connection of its own."""
        options.setdefault("headers", {"Authorization": f"Bearer {self.key}"} if self.key else {})
        options.setdefault("timeout", 60)
        with httpx.Client(trust_env=False) as client:
            return client.request(method, f"{self.url}{path}", **options)

    def get(self, path: str, **options: Any) -> Any:
        """The JSON of a page."""
        return self.request("GET", path, **options).raise_for_status().json()

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)

    def chat(self, model: str, text: str = "hello", **more: Any) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": text}], **more}
        return self.post("/v1/chat/completions", json=body)

    def models(self) -> list[str]:
        """The ids of `/v1/models`."""
        return [model["id"] for model in self.get("/v1/models")["data"]]

    def reasons(self) -> dict[str, str]:
        """Every model with the reason why it is not executable."""
        return {model["id"]: model["reason"] for model in self.get("/api/models")["models"]}

    def engine(self, model: str) -> dict[str, Any]:
        """What `/api/ps` says of a model's engine; empty where it does not run."""
        found: list[dict[str, Any]] = self.get("/api/ps")["models"]
        return next((engine for engine in found if engine["id"] == model), {})

    def _up_or_dead(self) -> bool:
        if self.process.poll() is not None:
            return True
        try:
            return self.request("GET", "/livez", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self.lines.append(line)
