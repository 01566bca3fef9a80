"""Of several beats, one ticks; another takes over when it is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from llmlb_site.beat import MOST_WAITING
from llmlb_site.lib.lease import LEASE_SECONDS, Lease
from tests.support.private_redis import PrivateRedis
from tests.support.product import ROOT, wait_until

TAKE_OVER_SECONDS = 15  # what is promised
BEAT = ("beat", "--loglevel", "info", "--pidfile=")
WORKER = ("worker", "--loglevel", "info", "--pool", "threads", "--concurrency", "2")


class Beat:
    """`celery beat` as a process of its own, or another command of Celery's."""

    def __init__(self, redis_url: str, data_dir: Path, *command: str) -> None:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("LLMLB_")},
            "LLMLB_REDIS_URL": redis_url,
            "LLMLB_DATA_DIR": str(data_dir),
            "LLMLB_SECRET_KEY": "the same secret key",
        }
        line = [
            sys.executable,
            "-m",
            "celery",
            "-A",
            "llmlb_site.celery",
            *(command or BEAT),
        ]
        self.process = subprocess.Popen(
            line, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.output = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def has_started(self) -> bool:
        return "LeasedScheduler" in self.output

    @property
    def took_the_lease(self) -> bool:
        return "lease taken" in self.output

    def end(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait(20)
        self._reader.join(5)

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout:
            for line in self.process.stdout:
                self.output += line


def sent(server: PrivateRedis) -> int:
    """How many tasks wait for a worker. There is none."""
    with redis.Redis.from_url(server.url) as client:
        return int(client.llen("llmlb:celery:llmlb"))


@pytest.fixture
def server() -> Iterator[PrivateRedis]:
    with PrivateRedis() as server:
        yield server


def test_one_of_two_beats_ticks_and_the_other_takes_over(server: PrivateRedis, tmp_path: Path) -> None:
    beats = [Beat(server.url, tmp_path), Beat(server.url, tmp_path)]
    try:
        wait_until(lambda: all(beat.has_started for beat in beats), seconds=60, what="both run")
        wait_until(lambda: any(beat.took_the_lease for beat in beats), seconds=10, what="one has the lease")
        began, before = time.monotonic(), sent(server)
        time.sleep(6)
        a_second = (sent(server) - before) / (time.monotonic() - began)
        assert 0.6 < a_second < 1.7, "both of them would send two"
        (holder,) = [beat for beat in beats if beat.took_the_lease]
        (other,) = [beat for beat in beats if beat is not holder]
        killed = time.monotonic()
        holder.end(signal.SIGKILL)
        wait_until(lambda: other.took_the_lease, seconds=TAKE_OVER_SECONDS, what="the other has taken over")
        before = sent(server)
        wait_until(
            lambda: sent(server) > before, seconds=killed + TAKE_OVER_SECONDS - time.monotonic(), what="it ticks"
        )
    finally:
        for beat in beats:
            if beat.process.poll() is None:
                beat.end()


def test_without_a_worker_what_waits_does_not_grow_for_ever(server: PrivateRedis, tmp_path: Path) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.rpush("llmlb:celery:llmlb", *[b"taken by nobody"] * (MOST_WAITING - 2))
        beat = Beat(server.url, tmp_path)
        try:
            wait_until(lambda: "no worker takes them" in beat.output, seconds=60, what="it is said")
            time.sleep(3)
            assert beat.output.count("no worker takes them") == 1
            assert sent(server) == MOST_WAITING
            client.delete("llmlb:celery:llmlb")
            wait_until(lambda: 0 < sent(server) < MOST_WAITING, seconds=5, what="it goes on")
        finally:
            beat.end()


def test_a_redis_that_refuses_for_a_while_ends_neither_worker_nor_beat(server: PrivateRedis, tmp_path: Path) -> None:
    beat, worker = Beat(server.url, tmp_path), Beat(server.url, tmp_path, *WORKER)
    try:
        with redis.Redis.from_url(server.url) as client:
            wait_until(lambda: beat.took_the_lease, seconds=60, what="the beat ticks")
            wait_until(lambda: received(worker), seconds=60, what="the worker works")
            beat.output = ""
            client.replicaof("127.0.0.1", 1)
            time.sleep(4)
            client.replicaof("NO", "ONE")
            before = received(worker)
            wait_until(lambda: received(worker) > before + 2, seconds=40, what="it works again")
            assert "Traceback" not in beat.output
            assert beat.output.count("Redis does not take what is due") == 1
    finally:
        for each in (beat, worker):
            if each.process.poll() is None:
                each.end()


def received(worker: Beat) -> int:
    """How many tasks it took. Each fails and says so: the database is empty."""
    return worker.output.count("raised unexpected")


def test_a_lease_is_of_one_until_it_is_released(server: PrivateRedis) -> None:
    now = [0.0]
    one, two = (Lease(server.url, "x", clock=lambda: now[0]) for _ in range(2))
    assert one.held()
    assert not two.held()
    one.release()
    now[0] += 5
    assert two.held()
    assert not one.held()
    for each in (one, two):
        each.close()


def test_without_redis_nobody_holds_it_for_long(server: PrivateRedis) -> None:
    now = [0.0]
    lease = Lease(server.url, "x", clock=lambda: now[0])
    assert lease.held()
    server.kill()
    now[0] += 5
    assert lease.held(), "Redis still keeps it for us, had it lived"
    now[0] += LEASE_SECONDS
    assert not lease.held()
    lease.close()
