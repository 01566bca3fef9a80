"""What is said of the history at scale: goals, tables, and where they come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.side_by_side import documents, goals, results, scale
from benchmarks.side_by_side.results import Results
from benchmarks.side_by_side.samples import OURS, Sample
from benchmarks.side_by_side.scale import POSTGRESQL, SQLITE


def history(vendor: str, rows: int) -> list[Sample]:
    """A short list, a filter that is slow, and one that does not count to the end."""
    whole = {"rows": float(rows), "row_bytes": 564.0, "drop_seconds": 0.25}
    return [
        filtered(vendor, "none", found=1e7, p95=12.0),
        filtered(vendor, "node", found=2000, p95=240.0, is_exact=0.0),
        filtered(vendor, "key", found=30, p95=20.0),
        Sample(scale.whole_case(vendor), OURS, 0, whole),
    ]


def filtered(vendor: str, name: str, *, found: float, p95: float, is_exact: float = 1.0) -> Sample:
    figures = {"found": found, "is_exact": is_exact, "p50_ms": p95 / 2, "p95_ms": p95}
    return Sample(scale.filter_case(vendor, name), OURS, 0, figures)


def recorded(round: int, factor: float) -> Sample:
    figures = {"cpu_us": 40.0, "per_second": 6000.0, "paced_cpu_us": 44.0, "put_mean_us": 0.5, "put_p99_us": 8.0}
    return Sample(
        scale.recorder_case(SQLITE, scale.ENCRYPTED), OURS, round, {name: v * factor for name, v in figures.items()}
    )


def judged(measured: list[Sample]) -> dict[str, list[str]]:
    return {row[0]: row[2:4] for row in goals.rows(measured, scale.GOALS)}


SLOWEST_POSTGRESQL = "10 000 000 requests on PostgreSQL: the slowest of list and filters, p95"
SLOWEST_SQLITE = "1 000 000 requests on SQLite: the slowest of list and filters, p95"


def test_the_slowest_filter_by_itself_is_what_counts() -> None:
    found = judged(history(POSTGRESQL, 10_000_000) + history(SQLITE, 1_000_000))
    assert found[SLOWEST_POSTGRESQL] == ["240 ms", "**missed**"]
    assert found[SLOWEST_SQLITE] == ["240 ms", "met"]
    assert found["a day of 10 000 000 requests in seven dropped, PostgreSQL"] == ["0.25 s", "met"]


def test_a_smaller_history_says_nothing_of_the_goals() -> None:
    found = judged(history(POSTGRESQL, 200_000))
    assert {tuple(row) for row in found.values()} == {("not measured", "–")}


def test_the_recorder_is_judged_by_the_median_of_its_rounds() -> None:
    found = judged([recorded(round, factor) for round, factor in enumerate((1.0, 0.8, 1.1))])
    assert found["recorder on SQLite, bodies of 1 KB + 1 KB encrypted"] == ["6000 rows/s (4800–6600)", "met"]
    assert found["CPU behind it at 5000 rows/s, SQLite"] == ["44 µs/row (35–48)", "**missed**"]


def test_a_table_has_every_filter_on_both_databases() -> None:
    lines = scale.filters_table(history(POSTGRESQL, 1) + history(SQLITE, 1)[1:]).splitlines()
    cells = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines}
    assert cells["none"] == ["10000000", "6.0", "12.0", "–", "–", "–"]
    assert cells["node"] == ["2000+", "120.0", "240.0"] * 2


def test_a_document_names_the_runs_that_its_figures_come_from() -> None:
    run = Results([("command", "python -m benchmarks.history"), ("date", "2026-11-22")], history(SQLITE, 1_000_000))
    text = "<!-- figures: history -->\n<!-- figures end -->\n"
    filled = documents.fill(text, Results(), "", {"2026-11-22-080650-history-sqlite.txt": run})
    assert (
        "`python -m benchmarks.history` on 2026-11-22: `benchmarks/results/2026-11-22-080650-history-sqlite.txt`"
        in filled
    )
    assert SLOWEST_SQLITE in filled


def test_the_latest_results_are_those_of_their_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    for name in ("2026-11-22-080650", "2026-11-23-080650", "2026-11-24-080650-history-sqlite"):
        (tmp_path / f"{name}.txt").touch()
    assert results.latest() == tmp_path / "2026-11-23-080650.txt"
    assert results.latest("history-sqlite") == tmp_path / "2026-11-24-080650-history-sqlite.txt"
    assert results.latest("recorder-sqlite") is None
