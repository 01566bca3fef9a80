"""Worker and beat as threads: they run tasks on time, come back when they die, say so meanwhile, and stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest
from celery import Celery

from llmlb_site.celery import app as celery_app
from llmlb_site.lib import health
from llmlb_site.serve.embedded import EmbeddedCelery, Supervised, worker_state
from tests.support.product import wait_until

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


RAN: list[float] = []


@celery_app.task(name="tests.tick", shared=False)
def tick() -> None:
    RAN.append(time.monotonic())


@pytest.fixture
def app() -> Iterator[Celery]:
    """The product's application (Celery runs one in a process), with a beat that does nothing but tick."""
    usual = celery_app.conf.beat_schedule
    celery_app.conf.beat_schedule = {"tick": {"task": "tests.tick", "schedule": 0.2}}
    yield celery_app
    celery_app.conf.beat_schedule = usual


@pytest.fixture
def ticks() -> list[float]:
    RAN.clear()
    return RAN


@pytest.fixture
def embedded(app: Celery, ticks: list[float]) -> Iterator[EmbeddedCelery]:
    embedded = EmbeddedCelery(app)
    embedded.start()
    yield embedded
    embedded.stop()


def names() -> set[str]:
    return {part.name for part in health.parts()}


def test_beat_ticks_and_the_worker_runs_the_task(embedded: EmbeddedCelery, ticks: list[float]) -> None:
    wait_until(lambda: len(ticks) >= 5, seconds=10, what="five ticks")
    gaps = [later - earlier for earlier, later in pairwise(ticks)]
    assert sorted(gaps)[len(gaps) // 2] < 1
    assert names() == {"worker", "beat"}
    assert health.failing() == ()


def test_a_task_sent_by_hand_runs_at_once(embedded: EmbeddedCelery, app: Celery, ticks: list[float]) -> None:
    before = len(ticks)
    app.send_task("tests.tick")
    wait_until(lambda: len(ticks) > before, seconds=5, what="the task")


def test_what_is_due_each_hour_runs_soon_after_the_start_too(
    app: Celery, ticks: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmlb_site.serve.embedded.RARE_TASKS_AFTER_SECONDS", 0.3)
    app.conf.beat_schedule = {"rare": {"task": "tests.tick", "schedule": 3600.0}}
    embedded = EmbeddedCelery(app)
    embedded.start()
    try:
        wait_until(lambda: ticks, seconds=10, what="the hourly task")
        time.sleep(0.7)
        assert len(ticks) == 1
    finally:
        embedded.stop()


def test_a_dead_worker_is_reported_and_started_again(embedded: EmbeddedCelery, ticks: list[float]) -> None:
    wait_until(lambda: ticks, seconds=10, what="a first tick")
    worker_state.should_stop = 0  # what ends a worker from inside
    failed = wait_until(health.failing, seconds=10, what="the worker is reported")
    assert [part.name for part in failed] == ["worker"]
    wait_until(lambda: not health.failing(), seconds=10, what="the worker is back")
    before = len(ticks)
    wait_until(lambda: len(ticks) > before + 2, seconds=10, what="ticks after the restart")


def test_stop_leaves_no_thread_and_no_report(app: Celery, ticks: list[float]) -> None:
    embedded = EmbeddedCelery(app)
    embedded.start()
    embedded.stop()
    assert not [thread for thread in threading.enumerate() if thread.name in {"llmlb-worker", "llmlb-beat"}]
    assert not names() & {"worker", "beat"}


def test_a_worker_that_waits_for_messages_stops_at_once(app: Celery) -> None:
    app.conf.beat_schedule = {}
    embedded = EmbeddedCelery(app)
    embedded.start()
    time.sleep(0.3)
    began = time.monotonic()
    embedded.stop()
    assert time.monotonic() - began < 1.3


class Failing:
    """A part that fails at once, every time."""

    name = "failing"

    def __init__(self) -> None:
        self.runs: list[float] = []

    def run(self) -> None:
        self.runs.append(time.monotonic())
        raise OSError("no")

    def stop(self) -> None:
        """Nothing runs long enough to be stopped."""


def test_a_part_that_keeps_failing_is_tried_less_and_less_often(caplog: pytest.LogCaptureFixture) -> None:
    part = Failing()
    supervised = Supervised(part, back_off=0.05)
    supervised.start()
    wait_until(lambda: len(part.runs) >= 5, seconds=10, what="five tries")
    assert supervised.stop(timeout=5)
    gaps = [later - earlier for earlier, later in pairwise(part.runs)]
    assert gaps[3] > gaps[0] * 4
    assert "the embedded failing failed" in caplog.text
