"""A fake inference server as a process of its own, so that it can be killed, stopped and started like a real one.

`python -m tests.support.node_process '{"models": […], "port": …, …}'` is that process; it needs no Django.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from types import TracebackType
from typing import Any, Final

import httpx

from nodes.fake_node import Behaviour, FakeNode
from tests.support.product import ROOT, free_port, wait_until

START_SECONDS: Final = 15.0
CALL_SECONDS: Final = 30.0
REMEMBERED: Final = 50_000  # requests of which the process knows


class NodeProcess:
    """A fake node that is up. Use as a context manager. Its port stays the same over `kill` and `start`.

    `kind`, `name`, `apis` are those of `FakeNode`; every other option is one of `Behaviour`.
    """

    def __init__(
        self,
        models: tuple[str, ...] = ("model-a",),
        *,
        name: str = "fake",
        kind: str = "openai_compatible",
        apis: tuple[str, ...] = (),
        **behaviour: Any,
    ) -> None:
        self.models = models
        self.port = free_port()
        self._told = {
            "models": models,
            "name": name,
            "kind": kind,
            "apis": apis,
            "port": self.port,
            "behaviour": behaviour,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> NodeProcess:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.kill()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "not started"
        return self._process

    def start(self) -> NodeProcess:
        """Start, and return when it answers."""
        command = [sys.executable, "-m", "tests.support.node_process", json.dumps(self._told)]
        self._process = subprocess.Popen(command, cwd=ROOT)
        wait_until(self._answers, seconds=START_SECONDS, what="the fake node answers")
        return self

    def kill(self) -> None:
        """SIGKILL: the kernel resets its connections, and refuses new ones."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()

    def freeze(self) -> None:
        """SIGSTOP: connections are still accepted by the kernel, and nothing answers."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def behave(self, **behaviour: Any) -> None:
        """Change how it behaves from now on; see `Behaviour`."""
        httpx.post(f"{self.url}/_fake", json=behaviour, timeout=CALL_SECONDS, trust_env=False).raise_for_status()

    def state(self) -> dict[str, Any]:
        """What it has seen: see `FakeNode.state`."""
        answer = httpx.get(f"{self.url}/_fake", timeout=CALL_SECONDS, trust_env=False)
        found: dict[str, Any] = answer.raise_for_status().json()
        return found

    def _answers(self) -> bool:
        assert self.process.poll() is None, f"the fake node ended with {self.process.returncode}"
        try:
            self.state()
        except httpx.HTTPError:
            return False
        return True


async def serve(told: dict[str, Any]) -> None:
    """Be the fake node until the process is killed, or its parent is gone."""
    node = FakeNode(
        told["models"],
        kind=told["kind"],
        name=told["name"],
        apis=told["apis"],
        behaviour=Behaviour(**told["behaviour"]),
    )
    await node.start(port=told["port"])
    parent = os.getppid()
    while os.getppid() == parent:
        await asyncio.sleep(1)
        del node.seen[:-REMEMBERED]


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve(json.loads(sys.argv[1])))
