"""The history at scale: what is measured by `benchmarks.history` and `benchmarks.recorder`, its goals, its tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from benchmarks.side_by_side import samples
from benchmarks.side_by_side.goals import Goal, Measured, rows
from benchmarks.side_by_side.report import Column, number, table
from benchmarks.side_by_side.results import Results
from benchmarks.side_by_side.samples import OURS, Spread

POSTGRESQL, SQLITE = "postgresql", "sqlite"
NAMES: Final[Mapping[str, str]] = {POSTGRESQL: "PostgreSQL", SQLITE: "SQLite"}
# How many requests there are when the figures count.
FULL: Final[Mapping[str, int]] = {POSTGRESQL: 10_000_000, SQLITE: 1_000_000}
# Results files are named by these, and the newest of each kind is shown.
KINDS: Final = tuple(f"{what}-{vendor}" for what in ("history", "recorder") for vendor in NAMES)
ENCRYPTED: Final = "encrypted"
PACE: Final = 5000  # rows a second
RECORDER: Final = (
    Column("CPU µs/row", "cpu_us", 1, ranged=True),
    Column("rows/s", "per_second", 0, ranged=True),
    Column(f"CPU µs/row at {PACE}/s", "paced_cpu_us", 1, ranged=True),
    Column("request waits: mean µs", "put_mean_us", 2),
    Column("p99 µs", "put_p99_us", 1),
    Column("max µs", "put_max_us", 0),
)


def filter_case(vendor: str, name: str) -> str:
    return f"history on {vendor}: {name}"


def whole_case(vendor: str) -> str:
    return f"history on {vendor}"


def recorder_case(vendor: str, bodies: str) -> str:
    return f"recorder on {vendor}, bodies: {bodies}"


def filters(measured: Measured, vendor: str) -> list[str]:
    """Their names, in the order of the run."""
    start = filter_case(vendor, "")
    return [sample.case.removeprefix(start) for sample in measured if sample.case.startswith(start)]


def of_history(vendor: str, name: str) -> Callable[[Measured], Spread | None]:
    """A figure of the whole history; None where it was smaller than the goal says."""
    return lambda measured: (
        samples.figure(measured, whole_case(vendor), OURS, name) if is_full(measured, vendor) else None
    )


def slowest(vendor: str) -> Callable[[Measured], Spread | None]:
    """Of the slowest filter by itself; None where the history was smaller than the goal says."""

    def figure(measured: Measured) -> Spread | None:
        if not is_full(measured, vendor):
            return None
        found = [
            samples.figure(measured, filter_case(vendor, name), OURS, "p95_ms") for name in filters(measured, vendor)
        ]
        return max(filter(None, found), key=lambda spread: spread.median, default=None)

    return figure


def is_full(measured: Measured, vendor: str) -> bool:
    rows = samples.figure(measured, whole_case(vendor), OURS, "rows")
    return rows is not None and rows.median >= FULL[vendor]


def of_recorder(vendor: str, name: str) -> Callable[[Measured], Spread | None]:
    return lambda measured: samples.figure(measured, recorder_case(vendor, ENCRYPTED), OURS, name)


HISTORY: Final = "python -m benchmarks.history"
RECORDER_COMMAND: Final = "python -m benchmarks.recorder"
ON: Final[Mapping[str, str]] = {POSTGRESQL: " --postgresql", SQLITE: ""}
GOALS: Final = (
    *(
        Goal(
            f"{FULL[vendor] // 10**6} 000 000 requests on {NAMES[vendor]}: the slowest of list and filters, p95",
            limit,
            "ms",
            slowest(vendor),
            f"{HISTORY}{ON[vendor]}",
            digits=0,
        )
        for vendor, limit in ((POSTGRESQL, 200), (SQLITE, 300))
    ),
    *(
        Goal(
            f"a request with its attempt and all indexes, without bodies, {NAMES[vendor]}",
            600,
            "bytes",
            of_history(vendor, "row_bytes"),
            f"{HISTORY}{ON[vendor]}",
            digits=0,
        )
        for vendor in NAMES
    ),
    Goal(
        "a day of 10 000 000 requests in seven dropped, PostgreSQL",
        1,
        "s",
        of_history(POSTGRESQL, "drop_seconds"),
        f"{HISTORY}{ON[POSTGRESQL]}",
    ),
    *(
        goal
        for vendor in NAMES
        for goal in (  # with bodies of 1 KB asked and 1 KB answered, encrypted
            Goal(
                f"recorder on {NAMES[vendor]}, bodies of 1 KB + 1 KB encrypted",
                PACE,
                "rows/s",
                of_recorder(vendor, "per_second"),
                f"{RECORDER_COMMAND}{ON[vendor]}",
                at_least=True,
                digits=0,
            ),
            Goal(
                f"what a request waits for it at {PACE} rows/s, {NAMES[vendor]}, mean",
                10,
                "µs",
                of_recorder(vendor, "put_mean_us"),
                f"{RECORDER_COMMAND}{ON[vendor]}",
            ),
            Goal(
                f"the same, {NAMES[vendor]}, p99",
                10,
                "µs",
                of_recorder(vendor, "put_p99_us"),
                f"{RECORDER_COMMAND}{ON[vendor]}",
                digits=1,
            ),
            Goal(
                f"CPU behind it at {PACE} rows/s, {NAMES[vendor]}",
                25,
                "µs/row",
                of_recorder(vendor, "paced_cpu_us"),
                f"{RECORDER_COMMAND}{ON[vendor]}",
                digits=0,
            ),
        )
    ),
)


def goals_table(measured: Measured) -> str:
    return table(["goal", "limit", "measured", "", "command"], rows(measured, GOALS))


def filters_table(measured: Measured) -> str:
    """Each filter on each database: how many it finds, and how long the first page takes."""
    vendors = [vendor for vendor in NAMES if filters(measured, vendor)]
    names = dict.fromkeys(name for vendor in vendors for name in filters(measured, vendor))
    head = [title for vendor in vendors for title in (f"{NAMES[vendor]}: found", "p50 ms", "p95 ms")]
    lines = [
        [name, *(text for vendor in vendors for text in _filter_cells(measured, filter_case(vendor, name)))]
        for name in names
    ]
    return table(["filter", *head], lines) if lines else ""


def _filter_cells(measured: Measured, case: str) -> list[str]:
    found, exact = (samples.figure(measured, case, OURS, name) for name in ("found", "is_exact"))
    more = "+" if exact is not None and not exact.median else ""
    return [
        f"{number(found, 0)}{more}",
        *(number(samples.figure(measured, case, OURS, name), 1) for name in ("p50_ms", "p95_ms")),
    ]


def recorder_table(measured: Measured) -> str:
    cases = dict.fromkeys(sample.case for sample in measured if sample.case.startswith("recorder on "))
    lines = [
        [
            case.removeprefix("recorder on "),
            *(
                number(samples.figure(measured, case, OURS, column.figure), column.digits, ranged=column.ranged)
                for column in RECORDER
            ),
        ]
        for case in cases
    ]
    return table(["recorder on", *(column.title for column in RECORDER)], lines) if lines else ""


def sources(runs: Mapping[str, Results]) -> str:
    """Where the figures come from: results files by their names."""
    return "\n".join(_source(name, found) for name, found in runs.items())


def _source(name: str, found: Results) -> str:
    machine = f"{found.note('cores')}, {found.note('system')}, Python {found.note('python')}"
    return (
        f"- `{found.note('command')}` on {found.note('date')}: `benchmarks/results/{name}`; "
        f"llmlb {found.note('llmlb')}, {found.note('database')}; {machine}; "
        f"load average before it: {found.note('load average before')}"
    )


def piece(runs: Mapping[str, Results]) -> str:
    """All of it, for a document."""
    measured = [sample for found in runs.values() for sample in found.measured]
    return "\n\n".join(filter(None, (sources(runs), tables(measured))))


def tables(measured: Sequence[samples.Sample]) -> str:
    return "\n\n".join(filter(None, (goals_table(measured), filters_table(measured), recorder_table(measured))))
