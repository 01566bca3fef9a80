"""One engine process: started in a session of its own, its output followed, ended with everything that it started."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import threading
from collections import deque
from typing import Final

from nodes.runtime.engines.base import Launch
from nodes.runtime.serving.logs import ENGINE

STOP_SECONDS: Final = 5.0
KILL: Final = getattr(signal, "SIGKILL", signal.SIGTERM)  # Windows has but one way to end a process
LAST_WORDS_SECONDS: Final = 1.0  # for the lines that are still on their way
LINES_KEPT: Final = 20
MAX_LINE: Final = 2000
# What is ours alone. And an engine is given its model as files: what it would fetch is not what was asked for.
WITHHELD: Final = ("LLM_RUNTIME_API_KEY", "LLM_RUNTIME_API_KEY_FILE", "HF_TOKEN", "HF_TOKEN_FILE")
OFFLINE: Final = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


class EngineProcess:
    """A child process. `ended` is set on the event loop when it is gone, however that came."""

    def __init__(self, launch: Launch, model_id: str) -> None:
        """Raises: OSError, where it cannot be started."""
        self._lines: deque[str] = deque(maxlen=LINES_KEPT)
        self._log = logging.getLogger(f"{ENGINE}.{model_id}")
        self._loop = asyncio.get_running_loop()
        self.ended = asyncio.Event()
        self._process = subprocess.Popen(  # noqa: S603  # the command line is an engine's own
            launch.argv,
            env=_environment(launch),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._follower = threading.Thread(target=self._follow, name=f"output of {model_id}", daemon=True)
        self._follower.start()
        threading.Thread(target=self._await_end, name=f"end of {model_id}", daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        return self._process.poll()

    @property
    def last_words(self) -> str:
        """The last line that it wrote, which usually says why it ended."""
        return next((line for line in reversed(self._lines) if line.strip()), "")

    def how_it_ended(self) -> str:
        code = self.exit_code
        if code is None:
            return "it is still running"
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        return f"{how}: {self.last_words}" if self.last_words else how

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL to whatever is left after `STOP_SECONDS`."""
        self._signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.ended.wait(), STOP_SECONDS)
        self.kill()
        await self.ended.wait()

    def kill(self) -> None:
        """End it and everything that it started, now."""
        self._signal(KILL)

    def memory_bytes(self) -> int | None:
        """What it and its children hold of this machine's memory; None where the system does not tell (not Linux)."""
        pids = _session_pids(self.pid)
        return sum(_resident_bytes(pid) for pid in pids) if pids else None

    def _signal(self, number: int) -> None:
        """To the whole session: vLLM, for one, has workers."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.name == "posix":
                os.killpg(self._process.pid, number)
            else:
                self._process.kill()

    def _follow(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for raw in iter(lambda: output.readline(MAX_LINE), b""):
                line = raw.decode("utf-8", "replace").rstrip()
                if line:
                    self._lines.append(line)
                    self._log.info("%s", line)

    def _await_end(self) -> None:
        """Waits for the process and not for the end of its output: what it has started may hold that open for ever."""
        self._process.wait()
        self.kill()  # what it started and left behind
        self._follower.join(LAST_WORDS_SECONDS)
        with contextlib.suppress(RuntimeError):  # the loop is closed: the node is gone
            self._loop.call_soon_threadsafe(self.ended.set)


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _environment(launch: Launch) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in WITHHELD}
    return {**inherited, **OFFLINE, **launch.env}


def _session_pids(leader: int) -> list[int]:
    """The processes of a session, from /proc."""
    found = []
    try:
        entries = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []
    for pid in entries:
        with contextlib.suppress(OSError):
            if os.getsid(pid) == leader:
                found.append(pid)
    return found


def _resident_bytes(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
