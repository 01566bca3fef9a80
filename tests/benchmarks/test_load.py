"""What is made of the load generator's words."""

from __future__ import annotations

import pytest

from benchmarks.side_by_side import load

OUTPUT = """Running 2s test @ http://127.0.0.1:1/v1/chat/completions
  1 threads and 16 connections
Requests/sec:  10.00

FIGURES {"requests": 1200, "seconds": 2.01, "p50_ms": 1.5, "p99_ms": 4.25, "max_ms": 9, "connect": 1, "read": 2, \
"write": 3, "status": 4, "timeout": 5}
"""


def test_figures_are_read_and_every_kind_of_error_counts() -> None:
    seen = load.parse(OUTPUT)
    assert (seen.requests, seen.seconds, seen.p50_ms, seen.p99_ms) == (1200, 2.01, 1.5, 4.25)
    assert seen.errors == 15


def test_a_load_generator_without_figures_is_told_in_one_line() -> None:
    with pytest.raises(load.LoadError, match=r"^wrk gave no figures: unable to connect refused$"):
        load.parse("", "unable to connect\n   refused\n")
