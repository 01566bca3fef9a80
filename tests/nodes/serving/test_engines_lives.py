"""How engines live: loaded when asked for, one request at a time, unloaded, evicted, started again."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.nodes.serving.conftest import MakeNode
from tests.support import model_files
from tests.support.node_server import NodeServer, aged, seen
from tests.support.product import wait_until

MIB = 1024 * 1024


def folder_of(tmp_path: Path, *names: str) -> Path:
    for name in names:
        model_files.gguf(tmp_path / "models" / name / "model.gguf")
    return tmp_path / "models"


def starts(node: NodeServer) -> int:
    return sum(" start " in line for line in seen(node))


def engine_pid(node: NodeServer) -> int:
    """The process of the engine that was started last."""
    return int([line for line in seen(node) if " start " in line][-1].split()[-1])


def test_a_model_is_loaded_when_it_is_asked_for_and_once(tmp_path: Path, serve: MakeNode) -> None:
    node = serve(folder_of(tmp_path, "a"))
    assert (starts(node), node.engine("a")) == (0, {})
    with ThreadPoolExecutor(4) as threads:
        statuses = sorted(threads.map(lambda _: node.chat("a").status_code, range(4)))
    assert set(statuses) <= {200, 429}
    assert statuses[0] == 200
    assert starts(node) == 1
    assert node.engine("a")["state"] == "ready"
    assert {model["id"]: model["state"] for model in node.get("/v1/models")["data"]} == {"a": "ready"}


def test_while_it_loads_clients_are_told_when_to_come_back(tmp_path: Path, serve: MakeNode) -> None:
    node = serve(folder_of(tmp_path, "a"), load_wait_secs=0.2, environment={"STAND_IN_LOAD_SECONDS": "3"})
    answer = node.chat("a")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_loading")
    assert int(answer.headers["retry-after"]) >= 1
    assert node.engine("a")["state"] == "loading"
    assert node.post("/api/models/load", json={"model": "a"}).status_code == 202
    wait_until(lambda: node.engine("a")["state"] == "ready", seconds=15, what="it is loaded")
    assert node.chat("a").status_code == 200
    assert starts(node) == 1


def test_one_request_at_a_time_and_the_next_is_told_that_it_is_busy(tmp_path: Path, serve: MakeNode) -> None:
    node = serve(folder_of(tmp_path, "a", "b"))
    node.chat("a")
    with _streaming(node, "a"):
        wait_until(lambda: node.engine("a")["active_requests"] == 1, seconds=5, what="the first is at work")
        busy = node.chat("a")
        assert (busy.status_code, busy.json()["error"]["code"]) == (429, "model_busy")
        assert busy.headers["retry-after"] == "1"
        assert node.chat("b").status_code == 200, "another model has a slot of its own"
        assert node.get("/api/health")["active_requests"] == 1
    wait_until(lambda: node.chat("a").status_code == 200, seconds=5, what="the slot is free again")


def test_as_many_requests_at_a_time_as_is_set(tmp_path: Path, serve: MakeNode) -> None:
    node = serve(folder_of(tmp_path, "a"), parallel=2)
    with _streaming(node, "a"), _streaming(node, "a"):
        wait_until(lambda: node.engine("a")["active_requests"] == 2, seconds=10, what="both are at work")
        assert node.chat("a").status_code == 429


def test_a_client_that_hangs_up_stops_the_engine_at_once(tmp_path: Path, serve: MakeNode) -> None:
    node = serve(folder_of(tmp_path, "a"))
    node.chat("a")
    with _streaming(node, "a"):
        pass
    left = time.monotonic()
    wait_until(lambda: any("hung up" in line for line in seen(node)), seconds=5, what="the engine's call is closed")
    assert time.monotonic() - left < 2  # it would have gone on for ten
    wait_until(lambda: node.engine("a")["active_requests"] == 0, seconds=5, what="its slot is free")
    assert "/v1/chat/completions a 499" in node.request("GET", "/api/logs").text


def test_it_is_unloaded_when_nobody_asks_any_more(tmp_path: Path, serve: MakeNode) -> None:
    node = serve(folder_of(tmp_path, "a"), idle_secs=3)
    node.chat("a")
    pid = node.engine("a")["pid"]
    assert node.engine("a")["unload_at"] is not None
    wait_until(lambda: not node.engine("a"), seconds=10, what="it is unloaded")
    wait_until(lambda: not _runs(pid), seconds=5, what="its process is gone")
    assert node.models() == ["a"]
    assert node.chat("a").status_code == 200, "and loaded again when somebody does"


def test_the_memory_cap_evicts_what_was_not_used_for_longest(tmp_path: Path, serve: MakeNode) -> None:
    folder = tmp_path / "models"
    for name in ("a", "b", "c"):
        model_files.gguf(folder / name / "model.gguf", grow_to=2 * MIB)
    model_files.gguf(folder / "giant" / "model.gguf", grow_to=8 * MIB)
    node = serve(folder, memory_mb=7)  # two models of 2 MiB, by half more each
    assert node.models() == ["a", "b", "c"]
    assert "this node may use" in node.reasons()["giant"]
    for model in ("a", "b", "a", "c"):
        assert node.chat(model).status_code == 200
    assert [engine["id"] for engine in node.get("/api/ps")["models"]] == ["a", "c"]
    with _streaming(node, "a"), _streaming(node, "c"):
        wait_until(lambda: node.get("/api/health")["active_requests"] == 2, seconds=10, what="both are at work")
        busy = node.chat("b")
        assert (busy.status_code, busy.json()["error"]["code"]) == (429, "model_busy")
    wait_until(lambda: node.chat("b").status_code == 200, seconds=5, what="there is room when one has done its work")


def test_a_model_that_no_engine_can_load_is_taken_out_with_its_reason(tmp_path: Path, serve: MakeNode) -> None:
    node = serve(folder_of(tmp_path, "unloadable", "fine"))
    assert node.models() == ["fine", "unloadable"]
    wait_until(lambda: node.chat("unloadable").status_code == 404, seconds=30, what="it is given up")
    assert node.models() == ["fine"]
    assert "llama.cpp cannot load it" in node.reasons()["unloadable"]
    assert "this model cannot be loaded" in node.reasons()["unloadable"], "the engine's own last words"
    assert starts(node) == 3
    model_files.gguf(node.models_dir / "unloadable" / "model.gguf", context_length=2048)
    aged(node.models_dir / "unloadable")
    os.utime(node.models_dir / "unloadable" / "model.gguf", (1, 1))
    wait_until(lambda: node.models() == ["fine", "unloadable"], seconds=10, what="another file gets another chance")


def test_a_model_that_fails_when_nobody_waits_is_taken_out_too(tmp_path: Path, serve: MakeNode) -> None:
    node = serve(folder_of(tmp_path, "unloadable"), load_wait_secs=0)
    assert node.post("/api/models/load", json={"model": "unloadable"}).status_code == 202
    wait_until(lambda: node.models() == [], seconds=30, what="it is given up")
    assert "this model cannot be loaded" in node.reasons()["unloadable"]
    assert node.chat("unloadable").status_code == 404
    wait_until(lambda: node.get("/api/ps") == {"models": []}, seconds=5, what="nothing is left of it")
    assert starts(node) == 3
    assert node.post("/api/models/load", json={"model": "unloadable"}).status_code == 202, "who asks for it gets a try"
    wait_until(lambda: starts(node) == 4, seconds=10, what="it is tried again")


def test_an_engine_that_is_killed_is_back_and_its_request_told_honestly(tmp_path: Path, serve: MakeNode) -> None:
    node = serve(folder_of(tmp_path, "a"))
    node.chat("a")
    killed = threading.Timer(0.5, lambda: os.kill(engine_pid(node), signal.SIGKILL))
    killed.start()
    answer = node.chat("a", "slow", stream=True)
    events = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    assert "content" in events[0]
    assert '"engine_failed"' in events[-1]
    assert "[DONE]" not in answer.text
    crashed = time.monotonic()
    wait_until(lambda: node.chat("a").status_code == 200, seconds=20, what="the engine is back")
    assert time.monotonic() - crashed < 5
    assert node.engine("a")["restarts"] == 1


def test_a_crash_before_the_answer_is_a_502_and_back_off_grows(tmp_path: Path, serve: MakeNode) -> None:
    node = serve(folder_of(tmp_path, "a"), load_wait_secs=0, environment={"STAND_IN_LOAD_SECONDS": "2"})
    node.post("/api/models/load", json={"model": "a"})
    for crashes in (1, 2):
        wait_until(lambda: node.engine("a")["state"] == "ready", seconds=15, what="it is ready")
        crashed_after = datetime.now(UTC)
        answer = node.chat("a", "crash")
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "engine_failed")
        wait_until(partial(_has_crashed, node, crashes), seconds=5, what="the crash is counted")
        assert node.engine("a")["state"] == "restarting"
        waiting = node.chat("a")
        assert (waiting.status_code, waiting.json()["error"]["code"]) == (503, "model_loading")
    wait_until(lambda: node.chat("a").status_code == 200, seconds=15, what="it is back")
    back_at = datetime.fromisoformat(node.engine("a")["loaded_at"])
    assert (back_at - crashed_after).total_seconds() > 3, "a second of waiting the second time, and two of loading"


def test_it_can_be_loaded_and_unloaded_by_hand(tmp_path: Path, serve: MakeNode) -> None:
    node = serve(folder_of(tmp_path, "a"))
    loaded = node.post("/api/models/load", json={"model": "a"})
    assert (loaded.status_code, loaded.json()["state"]) == (200, "ready")
    assert node.post("/api/models/unload", json={"model": "a"}).json() == {"unloaded": True}
    assert node.post("/api/models/unload", json={"model": "a"}).json() == {"unloaded": False}
    assert node.get("/api/ps") == {"models": []}


@pytest.mark.parametrize("how", ["asked to stop", "killed"])
def test_no_engine_outlives_its_node(tmp_path: Path, serve: MakeNode, how: str) -> None:
    node = serve(folder_of(tmp_path, "a"))
    node.chat("a")
    engine = engine_pid(node)
    assert _runs(engine)
    if how == "killed":
        node.process.kill()
        node.process.wait()
    else:
        assert node.stop() == 0
    wait_until(lambda: not _runs(engine), seconds=5, what="the engine is gone")


def _has_crashed(node: NodeServer, times: int) -> bool:
    return bool(node.engine("a")["restarts"] == times)


def test_a_node_that_is_asked_to_stop_lets_running_requests_go_on(tmp_path: Path, serve: MakeNode) -> None:
    node = serve(folder_of(tmp_path, "a"))
    node.chat("a")
    body = {"model": "a", "stream": True, "messages": [{"role": "user", "content": "slow"}]}
    with (
        httpx.Client(trust_env=False, timeout=30) as client,
        client.stream("POST", f"{node.url}/v1/chat/completions", json=body) as answer,
    ):
        lines = answer.iter_lines()
        next(lines)
        node.process.send_signal(signal.SIGTERM)
        asked = time.monotonic()
        while time.monotonic() < asked + 1.5:
            next(lines)  # would fail at the end of a stream that was cut
    assert node.process.wait(20) == 0


class _streaming:
    """A long stream that is open inside the block, and hung up on at its end."""

    def __init__(self, node: NodeServer, model: str) -> None:
        self._client = httpx.Client(trust_env=False, timeout=30)
        body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "slow"}]}
        self._stream = self._client.stream("POST", f"{node.url}/v1/chat/completions", json=body)

    def __enter__(self) -> None:
        answer = self._stream.__enter__()
        assert answer.status_code == 200
        self._pieces = answer.iter_bytes()  # kept: a response whose iterator is gone is closed
        next(self._pieces)

    def __exit__(self, *_: object) -> None:
        self._client.close()


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
