"""What was measured: one sample a run, medians and ranges over rounds, ratios within one round."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable
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
        """As kept in the results: one line of JSON."""
        rounded = {name: float(f"{value:.5g}") for name, value in self.figures.items()}
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


def ratio(samples: Iterable[Sample], case: str, name: str, of_gateway: str, to_gateway: str) -> Spread | None:
    """`of_gateway`'s figure divided by `to_gateway`'s of the same round: what disturbs a round disturbs both.

    Returns: None where a row had errors, or no round has both: such rows are not compared.
    """
    kept = list(samples)
    if errors(kept, case, of_gateway) or errors(kept, case, to_gateway):
        return None
    theirs = {sample.round: sample.figures.get(name, math.nan) for sample in of(kept, case, to_gateway)}
    return spread(
        sample.figures.get(name, math.nan) / theirs[sample.round]
        for sample in of(kept, case, of_gateway)
        if theirs.get(sample.round, 0) > 0
    )


def percentile(values: list[float], share: float) -> float:
    """Nearest rank; NaN of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else math.nan
