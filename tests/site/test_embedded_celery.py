"""Worker and beat as threads: they run tasks on time, come back when they die, say so meanwhile, and stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest
from celery import Celery

from llmlb_site.lib import health
from llmlb_site.serve.embedded import EmbeddedCelery, Supervised, worker_state
from tests.support.product import wait_until

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


@pytest.fixture(scope="module")
def app() -> Celery:
    """One for all: kombu's in-memory broker is global to the process, and so is the product's application."""
    app = Celery("test", set_as_current=False)
    app.conf.update(
        broker_url="memory://localhost/",
        broker_transport_options={"polling_interval": 0.05},
        task_ignore_result=True,
        worker_hijack_root_logger=False,
        task_default_queue=f"test-{time.monotonic_ns()}",
        beat_schedule={"tick": {"task": "tick", "schedule": 0.2}},
    )
    return app


@pytest.fixture(scope="module")
def every_tick(app: Celery) -> list[float]:
    ticks: list[float] = []

    @app.task(name="tick", shared=False)
    def tick() -> None:
        ticks.append(time.monotonic())

    return ticks


@pytest.fixture
def ticks(every_tick: list[float]) -> list[float]:
    every_tick.clear()
    return every_tick


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
    app.send_task("tick")
    wait_until(lambda: len(ticks) > before, seconds=5, what="the task")


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
