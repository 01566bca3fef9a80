"""What processes cost, by the machine's own clocks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks.side_by_side import machine

# Says what it has used so far whenever it is asked; its thread has ended by then.
WORKER = """
import sys, threading, time
thread = threading.Thread(target=lambda: sum(range(200_000)))
thread.start()
thread.join()
for _ in sys.stdin:
    print(time.process_time_ns(), flush=True)
"""
PARENT = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", "sum(range(3_000_000))"])
subprocess.run([sys.executable, "-c", {WORKER!r}])
"""


class Asked:
    """A program of those above while it runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.pid, self._questions, self._answers = process.pid, process.stdin, process.stdout

    def used_seconds(self) -> float:
        self._questions.write("\n")
        self._questions.flush()
        return int(self._answers.readline()) / 1e9


@contextmanager
def running(program: str) -> Iterator[Asked]:
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Asked(process)


def test_cpu_time_of_a_process_is_exact_with_that_of_threads_that_have_ended() -> None:
    with running(WORKER) as worker:
        for _ in range(20):
            before, seen, after = worker.used_seconds(), machine.cpu_seconds(worker.pid), worker.used_seconds()
            assert before <= seen <= after


def test_children_count_while_they_run_and_when_they_have_ended() -> None:
    with running(PARENT) as parent:
        used = parent.used_seconds()
        ended = machine.ended_children_seconds(parent.pid)
        assert ended > 0.01
        assert machine.cpu_seconds(parent.pid) > used + ended


def test_a_process_that_is_not_there_costs_nothing() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert machine.cpu_seconds(gone.pid) == 0


def test_what_python_was_built_with_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def built_with(arguments: str | None) -> str:
        monkeypatch.setattr("sysconfig.get_config_var", lambda name: {"CONFIG_ARGS": arguments}[name])
        return machine.describe()["python"]

    assert "--enable-optimizations" in built_with("'--enable-shared' '--enable-optimizations' '--with-lto'")
    assert "built" not in built_with("'--enable-shared'"), "nothing is said where nothing is known"
    assert "built" not in built_with(None)
