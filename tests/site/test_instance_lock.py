"""One server per port: who holds the lock, and what becomes of a lock whose holder is gone."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llmlb_site.serve.instance import AlreadyRunning, Instance, InstanceLock, port_lock_path, running
from tests.support.product import ROOT

HOLD = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from llmlb_site.serve.instance import Instance, InstanceLock
    InstanceLock(Path(sys.argv[1])).acquire(Instance.this_process(host="127.0.0.1", port=32768))
    print("held", flush=True)
    time.sleep(60)
    """
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "serve.lock"


def me() -> Instance:
    return Instance.this_process(host="127.0.0.1", port=32768)


@contextmanager
def another_holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLD, str(path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()
            process.wait()


def test_the_lock_says_who_holds_it_and_is_private(path: Path) -> None:
    lock = InstanceLock(path)
    lock.acquire(me())
    try:
        written = json.loads(path.read_text())
        assert written["pid"] == os.getpid()
        assert written["port"] == 32768
        assert written["started_at"].endswith("+00:00")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        lock.release()


def test_a_second_holder_learns_of_the_first(path: Path) -> None:
    with another_holder(path) as process:
        with pytest.raises(AlreadyRunning) as refused:
            InstanceLock(path).acquire(me())
        assert refused.value.instance is not None
        assert refused.value.instance.pid == process.pid
        found = running(path)
        assert found is not None
        assert found.pid == process.pid


def test_a_killed_holder_leaves_a_stale_lock_that_is_taken_over(path: Path) -> None:
    with another_holder(path) as process:
        process.kill()
        process.wait()
    assert path.exists()
    assert running(path) is None
    lock = InstanceLock(path)
    lock.acquire(me())
    assert json.loads(path.read_text())["pid"] == os.getpid()
    lock.release()


def test_a_lock_whose_pid_now_belongs_to_another_program_is_stale(path: Path) -> None:
    path.write_text(json.dumps({"pid": 1, "started_at": "2020-01-01T00:00:00+00:00", "port": 32768, "host": "x"}))
    assert running(path) is None
    lock = InstanceLock(path)
    lock.acquire(me())
    lock.release()


def test_a_longer_stale_lock_leaves_nothing_behind(path: Path) -> None:
    path.write_text("garbage " * 200)
    lock = InstanceLock(path)
    lock.acquire(me())
    assert json.loads(path.read_text())["port"] == 32768
    lock.release()


def test_release_removes_the_file_and_lets_the_next_one_in(path: Path) -> None:
    first = InstanceLock(path)
    first.acquire(me())
    first.release()
    assert not path.exists()
    second = InstanceLock(path)
    second.acquire(me())
    second.release()


def test_a_symbolic_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    path.symlink_to(victim)
    with pytest.raises(OSError):
        InstanceLock(path).acquire(me())
    assert victim.read_text() == "mine"


def test_ports_are_locked_in_a_directory_of_this_user_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    directory = port_lock_path(32768).parent
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert directory.name == f"llmlb-{os.getuid()}"


def test_somebody_elses_directory_is_not_trusted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / f"llmlb-{os.getuid()}").symlink_to(elsewhere)
    with pytest.raises(PermissionError):
        port_lock_path(32768)
