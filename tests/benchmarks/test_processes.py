"""What is compared where processes are counted, and what is made of it."""

from __future__ import annotations

import pytest

from benchmarks import processes
from benchmarks.side_by_side import documents, goals
from benchmarks.side_by_side.gateways import CannotStart
from benchmarks.side_by_side.results import Results
from benchmarks.side_by_side.samples import OURS, Sample


def test_load_takes_its_share_of_the_gateway_s_cores_where_there_are_no_others() -> None:
    placed = {one.name: (one.processes, one.cores, one.load) for one in processes.arrangements([3, 5])}
    assert placed[goals.ONE] == (1, {3}, {3})
    assert placed[goals.TWO] == (2, {3, 5}, {3, 5})
    assert placed[processes.ONE_IN_LONG_TURNS] == (1, {3}, {5})
    assert placed[processes.TWO_IN_LONG_TURNS] == (2, {3}, {5})


def test_load_has_cores_of_its_own_where_there_are_four() -> None:
    found = processes.arrangements([0, 1, 2, 3])
    assert [one.cores for one in found] == [{0}, {0, 1}, {0}, {0}]
    assert all(one.load == {2, 3} for one in found)


def test_one_core_is_too_few() -> None:
    with pytest.raises(CannotStart, match="one core only"):
        processes.arrangements([0])


def sample(name: str, round: int, per_second: float, cpu: float) -> Sample:
    return Sample("processes", name, round, {"per_second": per_second, "cpu_us": cpu, "pss_mb": 100.0})


def test_two_are_linear_where_they_serve_twice_as_much_and_cost_the_same() -> None:
    measured = [
        sample(goals.ONE, 0, 3000.0, 250.0),
        sample(goals.TWO, 0, 5400.0, 260.0),
        sample(goals.ONE, 1, 3000.0, 250.0),
        sample(goals.TWO, 1, 6000.0, 260.0),
        sample(processes.ONE_IN_LONG_TURNS, 0, 4000.0, 240.0),
        sample(processes.TWO_IN_LONG_TURNS, 0, 4000.0, 250.0),
    ]
    found = processes.figures(measured)
    assert found[goals.TWO_CORES] == pytest.approx(0.95)
    assert (found["linear on two cores, lowest"], found["linear on two cores, highest"]) == pytest.approx((0.9, 1.0))
    assert found[goals.ONE_CORE] == pytest.approx(0.96)
    run = Results([], [Sample(goals.PROCESSES, OURS, 0, found)])
    assert "one process takes 100 MB" in documents.memory_of_processes(run)
    judged = {row[0]: row[2:4] for row in goals.rows(run.measured)}
    assert judged["two processes on two cores: requests/s ÷ twice those of one on one core"] == ["0.95 ×", "met"]
