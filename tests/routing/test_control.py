"""The thread that reads the configuration: it looks in time however much it is asked, and says when it cannot."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from llmlb_site.lib import health
from routing import control, snapshot
from routing.control import Control
from tests.support.product import wait_until


@pytest.fixture
def thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[Control]:
    monkeypatch.setattr(control, "COMPARE_SECONDS", 0.1)
    monkeypatch.setattr(snapshot, "read_revisions", lambda: snapshot.Revisions(-1, -1))
    made = Control(lambda table: None, lambda principals: None, lambda call: None, lambda tokens: None)
    monkeypatch.setattr(made, "_read_at", time.monotonic())
    made._thread.start()
    yield made
    made._jobs.put(None)
    made._thread.join(5)
    health.forget("configuration")


def test_whether_nodes_are_checked_is_looked_at_while_somebody_asks_all_the_time(
    thread: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[float] = []
    monkeypatch.setattr(thread._overdue, "look", lambda: looks.append(time.monotonic()))
    end = time.monotonic() + 1
    while time.monotonic() < end:
        thread.look()
        time.sleep(0.01)
    assert 5 <= len(looks) <= 11


def test_a_database_that_does_not_answer_is_told_of(thread: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "STUCK_SECONDS", 0.3)
    monkeypatch.setattr(thread._overdue, "look", lambda: None)
    wait_until(lambda: [part.name for part in health.parts()] == ["configuration"], seconds=5, what="it looked")
    assert not health.failing()
    answer = threading.Event()
    monkeypatch.setattr(snapshot, "read_revisions", lambda: answer.wait(10) and snapshot.Revisions(-1, -1))
    wait_until(health.failing, seconds=5, what="it is stuck")
    assert [(part.name, part.detail) for part in health.failing()] == [("configuration", "waits for an answer")]
    answer.set()
    wait_until(lambda: not health.failing(), seconds=5, what="it goes on")
