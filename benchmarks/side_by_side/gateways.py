"""Gateways while they run: ours as people start it, and the peers, all before the same node and on the same core."""

from __future__ import annotations

import contextlib
import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from benchmarks.side_by_side import bodies, install, machine
from benchmarks.side_by_side.peers import KEY, PEERS, Peer, Place
from scripts.debian import NotInstalled
from tests.support.product import Product, free_port

START_SECONDS: Final = 90.0
START_TRIES: Final = 3
# So high that no run reaches them: each is looked at and counted for each request, of the key and of (key, model).
FAR: Final = 10**12
LIMITS: Final = {
    "requests_per_minute": FAR,
    "tokens_per_minute": FAR,
    "concurrent_requests": FAR,
    "tokens_per_day": FAR,
    "tokens_per_month": FAR,
}
NEW_KEY: Final = {
    "name": "bench",
    "permissions": ["openai.inference"],
    "limits": [{"model": "", **LIMITS}, {"model": "bench", **LIMITS}],
}
OURS: Final[Mapping[str, Mapping[str, str | None]]] = {
    "llmlb": {},
    "llmlb-nopayloads": {"LLMLB_HISTORY_PAYLOADS": "none"},
}


class CannotStart(Exception):
    """A gateway is left out; the reason in one line."""


class Gateway(Protocol):
    """What the measurements need of one that runs. `start_seconds`: from nothing to the first answer through it."""

    name: str
    version: str
    source: str
    most: int
    start_seconds: float
    key: str

    @property
    def url(self) -> str: ...
    @property
    def pid(self) -> int: ...
    def stop(self) -> None: ...


class Node:
    """The mock node. Measured by itself as well: what it and the load cost is what no gateway can go below."""

    name = "node, directly"
    source = "benchmarks/mock_node.py"
    version = ""
    most = 1000
    start_seconds = 0.0
    key = KEY

    def __init__(self, folder: Path, *, chunks: int, interval: float, on: set[int] = machine.LOAD_CORES) -> None:
        self.port = free_port()
        command = [sys.executable, "-m", "benchmarks.mock_node", str(self.port), str(chunks), str(interval)]
        self._process = machine.Process(command, folder / "node.log", on=on)
        with stopped_if_interrupted(self.stop):
            wait_for_answer(self.url, self.key, ended=self._process.has_ended, words=self._process.last_words)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/chat/completions"

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        self._process.stop()


class Ours:
    """`manage.py serve`, nothing set but the port: routing, usage, history with encrypted bodies; a key with limits."""

    source = "as it comes: everything on"
    most = 1000

    def __init__(
        self,
        name: str,
        node_port: int,
        folder: Path,
        environment: Mapping[str, str | None],
        *,
        command: tuple[str, ...] = ("serve",),
        on: set[int] = machine.GATEWAY_CORE,
    ) -> None:
        self.name, self.version, self._cores = name, install.our_version(), on
        self.database = folder / "data" / "llmlb.sqlite3"  # not there where it runs on PostgreSQL
        self.key = ""
        self._product = Product(
            folder / "data", command=command, environment={**environment, "PYTHONDONTWRITEBYTECODE": None}
        )
        self.first_start_seconds = self._start(lambda: self._register(node_port))
        self._product.stop()
        self.start_seconds = self._start(lambda: None)

    @property
    def url(self) -> str:
        return f"{self._product.url}/v1/chat/completions"

    @property
    def pid(self) -> int:
        return self._product.process.pid

    def stop(self) -> None:
        machine.thaw(self.pid)
        with contextlib.suppress(AssertionError):  # it had to be killed, and was
            self._product.stop()

    def _start(self, prepare: Callable[[], None]) -> float:
        began = time.monotonic()
        with stopped_if_interrupted(self._product.end), machine.pinned(self._cores):
            self._product.launch()
        with stopped_if_interrupted(self._product.end):
            self._wait()
            prepare()
            ended = self._product.process.poll
            wait_for_answer(self.url, self.key, ended=lambda: ended() is not None, words=self._last_words)
        return time.monotonic() - began

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._product.is_ready():
            if self._product.process.poll() is not None or time.monotonic() > deadline:
                raise CannotStart(self._last_words())
            time.sleep(0.02)

    def _last_words(self) -> str:
        return "".join(self._product.lines[-3:]).strip() or "it said nothing"

    def _register(self, node_port: int) -> None:
        self._post("/api/nodes", {"name": "mock", "base_url": f"http://127.0.0.1:{node_port}", "max_concurrency": 0})
        self.key = str(self._post("/api/api-keys", NEW_KEY)["key"])

    def _post(self, path: str, document: object) -> dict[str, Any]:
        answer = self._product.post(path, json=document)
        if answer.status_code != 201:
            raise CannotStart(f"{path} answered {answer.status_code}: {answer.text[:200]}")
        made: dict[str, Any] = answer.json()
        return made


class Foreign:
    """A peer. A port that someone else took meanwhile is one more try with another."""

    key = KEY

    def __init__(self, peer: Peer, node_port: int, folder: Path) -> None:
        self.name, self.source, self.most = peer.name, peer.source, peer.most
        try:
            program = install.program_of(peer)
        except NotInstalled as error:
            raise CannotStart(str(error)) from error
        self.version = install.version_of(peer, program)
        for last in range(START_TRIES, 0, -1):
            place = Place(program, free_port(), free_port(), node_port, folder)
            try:
                self.start_seconds = self._start(peer, place)
                return
            except CannotStart:
                if last == 1:
                    raise

    def _start(self, peer: Peer, place: Place) -> float:
        self._port, began = place.port, time.monotonic()
        self._process = machine.Process(
            [place.program, *peer.arguments(place)],
            place.folder / "output.log",
            on=machine.GATEWAY_CORE,
            environment={**install.python_environment(), **peer.environment},
        )
        with stopped_if_interrupted(self.stop):
            wait_for_answer(self.url, self.key, ended=self._process.has_ended, words=self._process.last_words)
        return time.monotonic() - began

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1/chat/completions"

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        self._process.stop()


@contextlib.contextmanager
def stopped_if_interrupted(stop: Callable[[], None]) -> Iterator[None]:
    """Whatever goes wrong before a gateway answers, Ctrl-C too, leaves no process behind."""
    try:
        yield
    except BaseException:
        stop()
        raise


def wait_for_answer(url: str, key: str, *, ended: Callable[[], bool], words: Callable[[], str]) -> None:
    """Until one question is answered as the node does. Raises CannotStart."""
    body = bodies.chat("hello")
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline, last = time.monotonic() + START_SECONDS, "no answer"
    while time.monotonic() < deadline:
        if ended():
            raise CannotStart(words())
        try:
            with opener.open(urllib.request.Request(url, body, headers), timeout=10) as answer:
                if json.load(answer)["choices"][0]["message"]["content"].startswith("word"):
                    return
        except urllib.error.HTTPError as error:
            last = f"{error.code} {error.read(200)!r}"
        except (OSError, ValueError, KeyError) as error:
            last = str(error)
        time.sleep(0.02)
    raise CannotStart(f"not ready after {START_SECONDS:g} s: {last}")


def names() -> list[str]:
    return [*OURS, *(peer.name for peer in PEERS)]


def start_ours(name: str, node_port: int, folder: Path) -> Ours:
    """With another port and directory where one was taken meanwhile. Raises CannotStart."""
    for number in range(START_TRIES):
        try:
            place = folder / str(number)
            place.mkdir()
            return Ours(name, node_port, place, OURS[name])
        except CannotStart as error:
            last = error
    raise last


def start(name: str, node_port: int, folder: Path) -> Gateway:
    """Raises CannotStart."""
    folder.mkdir(parents=True)
    try:
        if name in OURS:
            return start_ours(name, node_port, folder)
        return Foreign(next(peer for peer in PEERS if peer.name == name), node_port, folder)
    except (OSError, AssertionError) as error:
        raise CannotStart(str(error)) from error
