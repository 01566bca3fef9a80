"""Beat's clock: ticks come on time whatever the wall clock does, and waiting for them costs next to nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import time_machine
from celery import Celery

from llmlb_site.beat import SteadyScheduler

EVERY = 0.1


class Counting(SteadyScheduler):
    """Notes when it sends, instead of sending."""

    def __init__(self, app: Celery) -> None:
        self.sent: list[float] = []
        super().__init__(app, max_interval=1)

    def apply_entry(self, entry: object, producer: object = None) -> None:
        self.sent.append(time.monotonic())

    def run(self, seconds: float) -> int:
        """As Celery's service does. Returns: how often it looked."""
        end, looks = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            looks += 1
            time.sleep(max(0.0, self.tick()))
        return looks


@pytest.fixture
def beat() -> Iterator[Counting]:
    with Celery("test_beat", broker="memory://localhost/", set_as_current=False) as app:
        app.conf.beat_schedule = {"tick": {"task": "tests.tick", "schedule": EVERY}}
        yield Counting(app)


def test_a_tick_takes_few_looks(beat: Counting) -> None:
    looks = beat.run(10 * EVERY)
    assert 5 <= len(beat.sent) <= 10
    assert looks <= 3 * len(beat.sent)


def test_a_clock_that_is_set_back_delays_nothing(beat: Counting) -> None:
    beat.run(3 * EVERY)
    before = len(beat.sent)
    with time_machine.travel(time.time() - 3600, tick=True):
        beat.run(6 * EVERY)
    assert len(beat.sent) >= before + 3


def test_a_clock_that_is_set_forward_sends_nothing_twice(beat: Counting) -> None:
    with time_machine.travel(time.time() + 3600, tick=True):
        beat.run(6 * EVERY)
    assert len(beat.sent) <= 6
