"""An engine's process and its keeper, with real processes: how they end, and that nobody waits for ever."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from llmlb_site.lib.upstream.client import PooledClient
from nodes.runtime.backend import GpuBackend
from nodes.runtime.config import NodeConfig
from nodes.runtime.engines.base import Launch, Setup
from nodes.runtime.models import ModelFile, ModelFormat, Task
from nodes.runtime.serving.http import Refused
from nodes.runtime.serving.pool import EnginePool
from nodes.runtime.serving.process import EngineProcess
from nodes.runtime.serving.running import LoadFailed, RunningEngine, State

MODEL = ModelFile("org/model", Path("/nowhere/model.gguf"), ModelFormat.GGUF, ("llama",))

SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
    def log_message(self, *ignored): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def python(code: str, *arguments: str) -> Launch:
    return Launch((sys.executable, "-c", code, *arguments))


class ScriptedEngine:
    """An engine whose command is whatever the test says, by port."""

    name = "scripted"
    formats = frozenset({ModelFormat.GGUF})
    tasks = frozenset({Task.TEXT})
    paths = frozenset({"/v1/chat/completions"})

    def __init__(self, command: Callable[[int], Launch] = lambda port: python(SERVER, str(port))) -> None:
        self.start = command

    def is_installed(self) -> str:
        return ""

    def can_run(self, model: ModelFile, backend: GpuBackend) -> str:
        return ""

    def paths_for(self, model: ModelFile) -> frozenset[str]:
        return self.paths

    def command(self, model: ModelFile, port: int, setup: Setup) -> Launch:
        return self.start(port)


@pytest.fixture
async def upstream() -> AsyncIterator[PooledClient]:
    client = PooledClient(connect_timeout=2)
    yield client
    await client.aclose()


@pytest.fixture
async def pool(upstream: PooledClient, tmp_path: Path) -> AsyncIterator[EnginePool]:
    made = EnginePool(NodeConfig(models_dir=tmp_path, load_wait=10.0), Setup(), upstream)
    yield made
    await made.close()


async def within(seconds: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    return condition()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    return state != "Z"


async def test_the_end_is_seen_though_a_child_holds_the_output_open_and_the_child_ends_too(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    code = """
import subprocess, sys, os
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
open(sys.argv[1], "w").write(str(child.pid))
print("the last words", flush=True)
os._exit(3)
"""
    process = EngineProcess(python(code, str(note)), "m")
    async with asyncio.timeout(10):
        await process.ended.wait()
    assert process.how_it_ended() == "ended with code 3: the last words"
    assert await within(5, lambda: not alive(int(note.read_text())))


async def test_an_engine_that_does_not_heed_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nodes.runtime.serving.process.STOP_SECONDS", 0.3)
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    process = EngineProcess(python(code), "m")
    assert await within(10, lambda: process.last_words == "up")
    await process.stop()
    assert process.exit_code == -signal.SIGKILL


async def test_a_command_that_cannot_even_be_made_fails_the_load(upstream: PooledClient) -> None:
    def broken(port: int) -> Launch:
        raise ValueError("a fault of the engine's description")

    running = RunningEngine(MODEL, ScriptedEngine(broken), Setup(), upstream, load_timeout=5)
    with pytest.raises(LoadFailed, match="cannot be started"):
        await running.wait_ready(5)
    await running.stop()


async def test_a_killed_engine_is_back_within_five_seconds(upstream: PooledClient) -> None:
    running = RunningEngine(MODEL, ScriptedEngine(), Setup(), upstream, load_timeout=20)
    assert await running.wait_ready(20)
    assert running.process is not None
    first = running.process.pid
    os.kill(first, signal.SIGKILL)
    assert await within(5, lambda: running.restarts == 1 and running.state is State.READY)
    assert running.process.pid != first
    await running.stop()
    assert not alive(running.process.pid)


async def test_a_load_that_failed_while_nobody_waited_is_told_to_whoever_looks(
    pool: EnginePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nodes.runtime.serving.running.LOAD_ATTEMPTS", 1)
    engine = ScriptedEngine(lambda port: python("import sys; sys.exit('no such layer')"))
    running = await pool.load(MODEL, engine)
    assert await within(10, lambda: running.state is State.FAILED)
    await pool.tidy(lambda model_id: MODEL)
    assert pool.running == {}
    assert "no such layer" in pool.why_not(MODEL)
    pool.forgive(MODEL.id)
    assert pool.why_not(MODEL) == ""


async def test_who_waited_for_a_slot_of_an_engine_that_crashed_is_told_that_it_loads(pool: EnginePool) -> None:
    engine = ScriptedEngine()

    async def second() -> Refused:
        with pytest.raises(Refused) as refused:
            async with pool.lease(MODEL, engine):
                pass
        return refused.value

    async with pool.lease(MODEL, engine) as running:
        waiting = asyncio.create_task(second())
        assert await within(5, lambda: running.waiting == 1)
        assert running.process is not None
        running.process.kill()
        assert await within(5, lambda: running.state is State.RESTARTING or running.restarts == 1)
        running.state = State.RESTARTING  # as long as the slot is handed over
    assert (await waiting).code == "model_loading"
    assert running.slots.locked() is False


async def test_who_leaves_while_a_slot_is_given_takes_none(pool: EnginePool) -> None:
    engine = ScriptedEngine()
    async with pool.lease(MODEL, engine) as running:
        leaver = asyncio.create_task(pool.lease(MODEL, engine).__aenter__())
        assert await within(5, lambda: running.waiting == 1)
        running.slots.release()  # the slot is free and the leaver leaves, in one turn of the loop
        leaver.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaver
        await running.slots.acquire()  # it is there: the leaver has not kept it
    assert (running.active, running.waiting) == (0, 0)
