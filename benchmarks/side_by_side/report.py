"""Samples as tables of text (Markdown, readable as it stands)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.side_by_side import samples
from benchmarks.side_by_side.samples import OURS, Sample, Spread

REQUEST_COLUMNS = (
    ("CPU µs/request", "cpu_us", 0),
    ("requests/s", "per_second", 0),
    ("p50 ms", "p50_ms", 2),
    ("p99 ms", "p99_ms", 2),
    ("memory MB", "pss_mb", 0),
    ("other cores", "foreign_cores", 2),
)
STREAM_COLUMNS = (
    ("CPU µs/chunk", "cpu_us", 1),
    ("first byte p50 ms", "first_p50_ms", 2),
    ("p99 ms", "first_p99_ms", 2),
    ("chunk late p50 ms", "transit_p50_ms", 2),
    ("p99 ms", "transit_p99_ms", 2),
    ("gap p99 ms", "gap_p99_ms", 1),
    ("missing", "missing", 0),
    ("out of order", "out_of_order", 0),
    ("alone %", "alone_percent", 1),
    ("memory MB", "pss_mb", 0),
    ("other cores", "foreign_cores", 2),
)
COMPARED = " ({low}–{high})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose columns stand below each other in a terminal too."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]

    def drawn(line: Sequence[str]) -> str:
        cells = [
            text.ljust(width) if at == 0 else text.rjust(width)
            for at, (text, width) in enumerate(zip(line, widths, strict=True))
        ]
        return f"| {' | '.join(cells)} |"

    rule = "|".join("-" * (width + 2) if at == 0 else "-" * (width + 1) + ":" for at, width in enumerate(widths))
    return "\n".join([drawn(lines[0]), f"|{rule}|", *map(drawn, lines[1:])])


def number(spread: Spread | None, digits: int, *, ranged: bool = False) -> str:
    if spread is None:
        return "–"
    text = f"{spread.median:.{digits}f}"
    return f"{text} ({spread.low:.{digits}f}–{spread.high:.{digits}f})" if ranged and spread.rounds > 1 else text


def case_table(measured: Sequence[Sample], case: str) -> str:
    """One row a gateway: medians; the range of what is compared; how many times ours."""
    rows_of = list(dict.fromkeys(sample.gateway for sample in measured if sample.case == case))
    columns = (
        STREAM_COLUMNS
        if any("chunks" in sample.figures for sample in measured if sample.case == case)
        else REQUEST_COLUMNS
    )
    rows = []
    for gateway in rows_of:
        cells = [
            number(samples.figure(measured, case, gateway, name), digits, ranged=name == "cpu_us")
            for _, name, digits in columns
        ]
        compared = (
            "1" if gateway == OURS else number(samples.ratio(measured, case, "cpu_us", OURS, gateway), 2, ranged=True)
        )
        rows.append([gateway, *cells, str(samples.errors(measured, case, gateway)), compared])
    head = ["gateway", *(title for title, _, _ in columns), "errors", "llmlb's CPU ÷ its"]
    return f"{case}\n\n{table(head, rows)}"
