"""What a benchmark makes of its samples."""

from __future__ import annotations

import math

import pytest

from benchmarks.side_by_side import samples
from benchmarks.side_by_side.samples import Sample, Spread


def sample(gateway: str, round: int, cpu: float, errors: int = 0) -> Sample:
    return Sample("1 KB, c=16", gateway, round, {"cpu_us": cpu, "p50_ms": cpu / 100}, errors)


MEASURED = [
    sample("llmlb", 0, 60),
    sample("other", 0, 40),
    sample("llmlb", 1, 90),
    sample("other", 1, 45),
    sample("llmlb", 2, 70),
    sample("other", 2, 70),
]
CASE = "1 KB, c=16"


def test_median_and_range_over_rounds() -> None:
    assert samples.figure(MEASURED, CASE, "llmlb", "cpu_us") == Spread(70, 60, 90, 3)
    assert samples.figure(MEASURED, CASE, "nobody", "cpu_us") is None


def test_ratios_are_taken_within_a_round() -> None:
    found = samples.ratio(MEASURED, CASE, "cpu_us", "llmlb", "other")
    assert found == Spread(1.5, 1.0, 2.0, 3), "60/40, 90/45, 70/70, not the ratio of the medians (70/45)"


def test_what_is_added_is_taken_within_a_round() -> None:
    found = samples.difference(MEASURED, CASE, "p50_ms", "llmlb", "other")
    assert found is not None
    assert (found.median, found.low, found.high) == pytest.approx((0.2, 0.0, 0.45))


def test_a_row_with_errors_is_not_compared() -> None:
    failed = [*MEASURED, sample("other", 3, 1, errors=1), sample("llmlb", 3, 1)]
    assert samples.ratio(failed, CASE, "cpu_us", "llmlb", "other") is None
    assert samples.ratio(failed, CASE, "cpu_us", "other", "llmlb") is None
    assert samples.errors(failed, CASE, "other") == 1


def test_rounds_that_one_missed_are_left_out() -> None:
    found = samples.ratio([*MEASURED, sample("llmlb", 3, 1000)], CASE, "cpu_us", "llmlb", "other")
    assert found is not None
    assert found.rounds == 3


def test_a_sample_is_read_as_it_was_written() -> None:
    written = Sample("stream, c=64", "llmlb", 4, {"cpu_us": 41.25, "gap_p99_ms": 22.0, "chunks": 1_234_567}, 3)
    assert samples.read(f"# a note\n{written.line()}\n\n| a table |\n") == [written]


def test_percentile_is_by_nearest_rank() -> None:
    values = [float(number) for number in range(1, 101)]
    assert samples.percentile(values, 0.5) == 51
    assert samples.percentile(values, 0.99) == 100
    assert samples.percentile(values, 1) == 100
    assert math.isnan(samples.percentile([], 0.5))
