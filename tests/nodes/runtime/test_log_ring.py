"""The lines that a node keeps for `/api/logs`."""

from __future__ import annotations

import logging

import pytest

from nodes.runtime.serving.logs import LogRing


def line(message: str, *arguments: object, name: str = "llmlb.node") -> logging.LogRecord:
    return logging.LogRecord(name, logging.INFO, __file__, 1, message, arguments, None)


def test_the_newest_lines_are_kept_oldest_first() -> None:
    ring = LogRing(kept=3)
    for number in range(5):
        ring.emit(line("line %d", number))
    assert [kept["message"] for kept in ring.tail(10)] == ["line 2", "line 3", "line 4"]
    assert [kept["message"] for kept in ring.tail(1)] == ["line 4"]


def test_a_line_tells_its_time_and_where_it_is_from() -> None:
    ring = LogRing()
    ring.emit(line("up", name="llmlb.engine.org/name-2.5"))
    (kept,) = ring.tail(1)
    assert (kept["target"], kept["level"], kept["timestamp"][-1]) == ("engine:org/name-2.5", "info", "Z")


def test_a_line_that_cannot_be_written_does_not_fail_who_wrote_it(capsys: pytest.CaptureFixture[str]) -> None:
    ring = LogRing()
    ring.emit(line("%d", "not a number"))
    assert ring.tail(10) == []
    assert "Logging error" in capsys.readouterr().err
