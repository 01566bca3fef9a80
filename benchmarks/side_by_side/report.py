"""Samples as tables of text: Markdown, readable as it stands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from benchmarks.side_by_side import goals, samples
from benchmarks.side_by_side.goals import AT_REST, C1, C16, NODE, STREAM
from benchmarks.side_by_side.results import Results
from benchmarks.side_by_side.samples import OURS, Sample, Spread


class Column(NamedTuple):
    """`added`: less what the node takes when it is asked directly. `ranged`: with lowest and highest round."""

    title: str
    figure: str
    digits: int
    added: bool = False
    ranged: bool = False


REQUESTS: Final = (
    Column("CPU µs/request", "cpu_us", 0, ranged=True),
    Column("requests/s", "per_second", 0),
    Column("p50 ms", "p50_ms", 2),
    Column("p99 ms", "p99_ms", 2),
    Column("added p50 ms", "p50_ms", 2, added=True),
    Column("added p99 ms", "p99_ms", 2, added=True),
    Column("memory MB", "pss_mb", 0),
)
STREAMS: Final = (
    Column("CPU µs/chunk", "cpu_us", 1, ranged=True),
    Column("added first byte p50 ms", "first_p50_ms", 2, added=True),
    Column("p99 ms", "first_p99_ms", 2, added=True),
    Column("chunk late p50 ms", "transit_p50_ms", 2),
    Column("p99 ms", "transit_p99_ms", 2),
    Column("gap p99 ms", "gap_p99_ms", 1),
    Column("missing", "missing", 0),
    Column("out of order", "out_of_order", 0),
    Column("came alone %", "alone_percent", 1),
    Column("memory MB", "pss_mb", 0),
)
REST: Final = (
    Column("start s", "start_seconds", 2),
    Column("first start s", "first_start_seconds", 2),
    Column("memory MB", "pss_mb", 0),
    Column("CPU %", "idle_cpu_percent", 2),
)
# Beyond this many cores used by others, on the median, a row's times say little.
DISTURBED: Final = 0.1


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose columns stand below each other in a terminal too."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]

    def drawn(line: Sequence[str]) -> str:
        first, *others = (
            text.ljust(width) if at == 0 else text.rjust(width)
            for at, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        return f"| {' | '.join([first, *others])} |"

    rule = "|".join("-" * (width + 2) if at == 0 else "-" * (width + 1) + ":" for at, width in enumerate(widths))
    return "\n".join([drawn(lines[0]), f"|{rule}|", *map(drawn, lines[1:])])


def number(spread: Spread | None, digits: int, *, ranged: bool = False) -> str:
    if spread is None:
        return "–"
    text = f"{spread.median:.{digits}f}"
    return f"{text} ({spread.low:.{digits}f}–{spread.high:.{digits}f})" if ranged and spread.rounds > 1 else text


def cell(measured: Sequence[Sample], case: str, gateway: str, column: Column) -> str:
    if column.added:
        if gateway == NODE:
            return "0"
        return number(samples.difference(measured, case, column.figure, gateway, NODE), column.digits)
    return number(samples.figure(measured, case, gateway, column.figure), column.digits, ranged=column.ranged)


def columns_of(measured: Sequence[Sample], case: str) -> tuple[Column, ...]:
    if case == AT_REST:
        return REST
    return STREAMS if any("chunks" in sample.figures for sample in measured if sample.case == case) else REQUESTS


def cases(measured: Sequence[Sample]) -> list[str]:
    """Those with several gateways, in the order of the run; the others are single figures."""
    single = (goals.MANY, goals.CHOOSING, goals.PROCESSES)
    return [case for case in dict.fromkeys(sample.case for sample in measured) if case not in single]


def case_table(measured: Sequence[Sample], case: str) -> str:
    """One row a gateway: medians over the rounds, and how many times its CPU ours is, within a round."""
    columns = columns_of(measured, case)
    compared = case != AT_REST
    rows = []
    for gateway in dict.fromkeys(sample.gateway for sample in measured if sample.case == case):
        row = [gateway, *(cell(measured, case, gateway, column) for column in columns)]
        if compared:
            ratio = samples.ratio(measured, case, "cpu_us", OURS, gateway) if gateway not in (OURS, NODE) else None
            row += [str(samples.errors(measured, case, gateway)), number(ratio, 2, ranged=True)]
        rows.append(row)
    head = ["gateway", *(column.title for column in columns), *(["errors", "llmlb's CPU ÷ its"] if compared else [])]
    return table(head, rows)


def remarks(measured: Sequence[Sample], case: str) -> str:
    """What must be known of a table: whether the history was really written, and who else used the machine."""
    return "\n\n".join(filter(None, (kept(measured, case), noise(measured, case))))


def kept(measured: Sequence[Sample], case: str) -> str:
    rows = samples.figure(measured, case, OURS, "rows_kept_percent")
    bodies = samples.figure(measured, case, OURS, "bodies_kept_percent")
    if rows is None or bodies is None:
        return ""
    return f"In llmlb's history afterwards: {rows.low:.0f} % of these requests, {bodies.low:.0f} % of their bodies."


def noise(measured: Sequence[Sample], case: str) -> str:
    spread = samples.spread(
        sample.figures["foreign_cores"]
        for sample in measured
        if sample.case == case and "foreign_cores" in sample.figures
    )
    if spread is None or spread.median < DISTURBED:
        return ""
    return f"Disturbed: other programs used {spread.median:.2f} cores meanwhile (up to {spread.high:.2f})."


SUMMARY: Final = (
    ("CPU µs/request", C16, Column("", "cpu_us", 0)),
    ("c=1000", "1 KB, c=1000", Column("", "cpu_us", 0)),
    ("100 KB", "100 KB, c=16", Column("", "cpu_us", 0)),
    ("5 MB", "5 MB, c=4", Column("", "cpu_us", 0)),
    ("requests/s on one core", C16, Column("", "per_second", 0)),
    ("added p50 ms, c=1", C1, Column("", "p50_ms", 2, added=True)),
    ("CPU µs/chunk", STREAM, Column("", "cpu_us", 1)),
    ("added first byte ms", STREAM, Column("", "first_p50_ms", 2, added=True)),
    ("memory MB", AT_REST, Column("", "pss_mb", 0)),
    ("start s", AT_REST, Column("", "start_seconds", 2)),
)


def summary(results: Results) -> str:
    """One row a gateway over all cases."""
    measured = results.measured
    versions = results.versions()
    rows = []
    for gateway in dict.fromkeys(sample.gateway for sample in measured if sample.case in cases(measured)):
        ratio = number(samples.ratio(measured, C16, "cpu_us", gateway, OURS), 2)
        errors = sum(samples.errors(measured, case, gateway) for case in cases(measured))
        figures = [cell(measured, case, gateway, column) for _, case, column in SUMMARY]
        version = versions.get(gateway, "").split(";")[0].split(" on ")[0]
        rows.append([f"{gateway} {version}".strip(), figures[0], ratio, *figures[1:], str(errors)])
    head = ["gateway", SUMMARY[0][0], "× llmlb's", *(title for title, _, _ in SUMMARY[1:]), "errors"]
    return table(head, rows)


def goals_table(results: Results) -> str:
    return table(["goal", "limit", "measured", "", "command"], goals.rows(results.measured))


def whole(results: Results) -> str:
    """Every table of a run."""
    parts = []
    for case in cases(results.measured):
        parts += [f"## {case}", case_table(results.measured, case), remarks(results.measured, case)]
    parts += ["## All of it", summary(results), "## Goals", goals_table(results)]
    return "\n\n".join(part for part in parts if part)
