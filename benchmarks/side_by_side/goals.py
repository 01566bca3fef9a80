"""What llmlb promises of its own speed, and what a run says of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.side_by_side import samples
from benchmarks.side_by_side.samples import OURS, Sample, Spread

NODE: Final = "node, directly"
AT_REST: Final = "at rest"
MANY: Final = "1 000 streams"
CHOOSING: Final = "choosing a node"
PROCESSES: Final = "processes"
ONE, TWO = "one process on one core", "two processes on two cores"
TWO_CORES: Final = "linear on two cores"
ONE_CORE: Final = "linear on one core"
C1: Final = "1 KB, c=1"
C16: Final = "1 KB, c=16"
STREAM: Final = "stream, c=64"

Measured = Sequence[Sample]


@dataclass(frozen=True, slots=True)
class Goal:
    """`figure` of the samples must be at most `limit`, or at least where `at_least`."""

    text: str
    limit: float
    unit: str
    figure: Callable[[Measured], Spread | None]
    command: str
    at_least: bool = False
    digits: int = 2

    def is_met(self, spread: Spread) -> bool:
        return spread.median >= self.limit if self.at_least else spread.median <= self.limit


def ours_to(gateway: str, case: str) -> Callable[[Measured], Spread | None]:
    return lambda measured: samples.ratio(measured, case, "cpu_us", OURS, gateway)


def theirs_to_ours(gateway: str, case: str) -> Callable[[Measured], Spread | None]:
    return lambda measured: samples.ratio(measured, case, "cpu_us", gateway, OURS)


def added(case: str, name: str) -> Callable[[Measured], Spread | None]:
    return lambda measured: samples.difference(measured, case, name, OURS, NODE)


def own(case: str, name: str) -> Callable[[Measured], Spread | None]:
    return lambda measured: samples.figure(measured, case, OURS, name)


SIDE: Final = "python -m benchmarks.side_by_side"
GOALS: Final = (
    Goal("CPU per request ÷ vllm-router's", 1.5, "×", ours_to("vllm-router", C16), f'{SIDE} --rows "1 KB, c=16"'),
    Goal(
        "LiteLLM's CPU per request ÷ ours",
        100,
        "×",
        theirs_to_ours("litellm", C16),
        f'{SIDE} --rows "1 KB, c=16"',
        at_least=True,
        digits=0,
    ),
    Goal("CPU per relayed chunk ÷ vllm-router's", 1.5, "×", ours_to("vllm-router", STREAM), f"{SIDE} --rows stream"),
    Goal("added to a call, one at a time, p50", 0.3, "ms", added(C1, "p50_ms"), f'{SIDE} --rows "1 KB, c=1"'),
    Goal("added to the first byte, p50", 1, "ms", added(STREAM, "first_p50_ms"), f"{SIDE} --rows stream"),
    Goal("added to the first byte, p99", 3, "ms", added(STREAM, "first_p99_ms"), f"{SIDE} --rows stream"),
    Goal(
        "1 000 streams × 20 chunks/s: memory",
        200,
        "MB",
        own(MANY, "peak_mb"),
        "python -m benchmarks.many_streams",
        digits=0,
    ),
    Goal(
        "1 000 streams × 20 chunks/s: latest chunk",
        100,
        "ms",
        own(MANY, "transit_max_ms"),
        "python -m benchmarks.many_streams",
        digits=0,
    ),
    Goal(
        "choosing among 1 000 nodes × 10 000 models, p99",
        50,
        "µs",
        own(CHOOSING, "slowest_p99_us"),
        "python -m benchmarks.choosing",
        digits=1,
    ),
    Goal("whole product at rest: memory", 150, "MB", own(AT_REST, "pss_mb"), f"{SIDE} --rows rest", digits=0),
    Goal(
        "two processes on two cores: requests/s ÷ twice those of one on one core",
        0.9,
        "×",
        own(PROCESSES, TWO_CORES),
        "python -m benchmarks.processes",
        at_least=True,
    ),
    Goal(
        "two processes on one core (SCHED_BATCH): CPU per request of one ÷ theirs",
        0.9,
        "×",
        own(PROCESSES, ONE_CORE),
        "python -m benchmarks.processes",
        at_least=True,
    ),
)


def rows(measured: Measured, goals: Sequence[Goal] = GOALS) -> list[list[str]]:
    """Goal, limit, figure with its range, whether it is met, and the command that prints it."""
    found = []
    for goal in goals:
        spread = goal.figure(measured)
        limit = f"{'≥' if goal.at_least else '≤'} {goal.limit:g} {goal.unit}"
        if spread is None:
            found.append([goal.text, limit, "not measured", "–", f"`{goal.command}`"])
            continue
        text = f"{spread.median:.{goal.digits}f} {goal.unit}"
        if spread.rounds > 1:
            text += f" ({spread.low:.{goal.digits}f}–{spread.high:.{goal.digits}f})"
        found.append([goal.text, limit, text, "met" if goal.is_met(spread) else "**missed**", f"`{goal.command}`"])
    return found
