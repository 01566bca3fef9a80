"""The broker in memory: who waits for a message is woken by it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from kombu import Connection
from kombu.simple import SimpleQueue

from llmlb_site.serve import broker

LONG = 10.0


@pytest.fixture
def connection() -> Iterator[Connection]:
    with Connection("memory://localhost/", transport=broker.Transport) as connection:
        yield connection


@pytest.fixture
def queue(connection: Connection) -> Iterator[SimpleQueue]:
    with connection.SimpleQueue("tests.broker") as queue:
        yield queue


def test_a_message_wakes_who_waits_for_it(queue: SimpleQueue) -> None:
    def send() -> None:
        with (
            Connection("memory://localhost/", transport=broker.Transport) as another,
            another.SimpleQueue("tests.broker") as same,
        ):
            same.put("hello")

    began = time.monotonic()
    threading.Timer(0.2, send).start()
    assert queue.get(timeout=LONG).payload == "hello"
    assert time.monotonic() - began < LONG / 2


def test_messages_that_wait_already_are_delivered_in_order(queue: SimpleQueue) -> None:
    for number in range(3):
        queue.put(number)
    assert [queue.get(timeout=LONG).payload for _ in range(3)] == [0, 1, 2]


def test_nothing_in_time_is_a_timeout(connection: Connection, queue: SimpleQueue) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        connection.drain_events(timeout=0.3)
    assert 0.25 < time.monotonic() - began < 3


def test_waiting_is_ended_without_a_message(connection: Connection, queue: SimpleQueue) -> None:
    began = time.monotonic()
    threading.Timer(0.2, broker.wake).start()
    connection.drain_events(timeout=LONG)
    assert time.monotonic() - began < LONG / 2
