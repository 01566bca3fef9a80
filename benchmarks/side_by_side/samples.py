"""What was measured: one sample a run, medians and ranges over rounds, ratios within one round."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Final

OURS: Final = "llmlb"


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of one case on one gateway. `figures` are named with their units; `errors` counts failed requests."""

    case: str
    gateway: str
    round: int
    figures: dict[str, float]
    errors: int = 0

    def line(self) -> str:
        """As kept in the results: one line of JSON. What was counted stays whole, what was measured has five digits."""
        rounded = {
            name: value if float(value).is_integer() else float(f"{value:.5g}") for name, value in self.figures.items()
        }
        return json.dumps({**asdict(self), "figures": rounded})


def read(text: str) -> list[Sample]:
    """The samples of a results file; its other lines are for people."""
    return [Sample(**json.loads(line)) for line in text.splitlines() if line.startswith('{"case"')]


@dataclass(frozen=True, slots=True)
class Spread:
    """Of one figure over the rounds."""

    median: float
    low: float
    high: float
    rounds: int


def spread(values: Iterable[float]) -> Spread | None:
    """Returns: None where nothing was measured."""
    known = sorted(value for value in values if not math.isnan(value))
    return Spread(statistics.median(known), known[0], known[-1], len(known)) if known else None


def of(samples: Iterable[Sample], case: str, gateway: str) -> list[Sample]:
    return [sample for sample in samples if (sample.case, sample.gateway) == (case, gateway)]


def figure(samples: Iterable[Sample], case: str, gateway: str, name: str) -> Spread | None:
    """Of the rounds of one row; what errors there were is told apart, by `errors`."""
    return spread(sample.figures.get(name, math.nan) for sample in of(samples, case, gateway))


def errors(samples: Iterable[Sample], case: str, gateway: str) -> int:
    return sum(sample.errors for sample in of(samples, case, gateway))


def ratio(samples: Iterable[Sample], case: str, name: str, one: str, other: str) -> Spread | None:
    """The figure of `one` divided by that of `other` in the same round: what disturbs a round disturbs both.

    Returns: None where a row had errors, or no round has both: such rows are not compared.
    """
    return _paired(list(samples), case, name, one, other, lambda mine, theirs: mine / theirs if theirs else math.nan)


def difference(samples: Iterable[Sample], case: str, name: str, one: str, other: str) -> Spread | None:
    """What `one` adds to `other`'s figure in the same round. Returns: None as `ratio` does."""
    return _paired(list(samples), case, name, one, other, lambda mine, theirs: mine - theirs)


def _paired(
    samples: list[Sample], case: str, name: str, one: str, other: str, how: Callable[[float, float], float]
) -> Spread | None:
    if errors(samples, case, one) or errors(samples, case, other):
        return None
    theirs = {sample.round: sample.figures.get(name, math.nan) for sample in of(samples, case, other)}
    return spread(
        how(sample.figures.get(name, math.nan), theirs[sample.round])
        for sample in of(samples, case, one)
        if sample.round in theirs
    )


def percentile(values: list[float], share: float) -> float:
    """Nearest rank; NaN of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else math.nan
