"""Tables, goals, the picture, and what goes into documents: all from the samples, nothing by hand."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from benchmarks.side_by_side import documents, goals, picture, report, results
from benchmarks.side_by_side.goals import C16, MANY, NODE, STREAM
from benchmarks.side_by_side.results import Results
from benchmarks.side_by_side.samples import Sample


def run() -> Results:
    """Three rounds in which everything goes as it should but for HAProxy."""
    measured = []
    for round, factor in enumerate((1.0, 1.1, 0.9)):
        for gateway, cpu in ((NODE, 7.0), ("llmlb", 66.0), ("vllm-router", 50.0), ("litellm", 9000.0)):
            figures = {"cpu_us": cpu * factor, "per_second": 1e6 / cpu, "p50_ms": cpu / 100, "foreign_cores": 0.0}
            measured.append(Sample(C16, gateway, round, figures))
            measured.append(Sample(STREAM, gateway, round, {"chunks": 6400, "cpu_us": cpu, "first_p50_ms": cpu / 100}))
        measured.append(Sample(C16, "haproxy", round, {"cpu_us": 12.0, "foreign_cores": 0.4}, errors=3))
    measured.append(Sample(MANY, "llmlb", 0, {"peak_mb": 240.0, "transit_max_ms": 40.0}))
    return Results([("command", "make bench"), ("date", "2026-11-22"), ("gateway llmlb", "0.2; as it comes")], measured)


def test_a_table_tells_medians_ranges_and_ratios_within_rounds() -> None:
    lines = report.case_table(run().measured, C16).splitlines()
    head, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "---" not in line]
    found = {row[0]: dict(zip(head, row, strict=True)) for row in rows}
    assert found["llmlb"]["CPU µs/request"] == "66 (59–73)"
    assert found["vllm-router"]["llmlb's CPU ÷ its"] == "1.32 (1.32–1.32)"
    assert (found["haproxy"]["errors"], found["haproxy"]["llmlb's CPU ÷ its"]) == ("9", "–"), "errors: not compared"


def test_noise_of_other_programs_is_told() -> None:
    quiet = run().measured
    assert report.noise(quiet, C16) == ""
    noisy = [Sample(C16, "llmlb", 0, {"cpu_us": 1.0, "foreign_cores": 0.7})]
    assert "0.70 cores" in report.noise(noisy, C16)


def test_goals_are_met_missed_or_not_measured() -> None:
    rows = {row[0]: row[2:4] for row in goals.rows(run().measured)}
    assert rows["CPU per request ÷ vllm-router's"] == ["1.32 × (1.32–1.32)", "met"]
    assert rows["LiteLLM's CPU per request ÷ ours"] == ["136 × (136–136)", "met"]
    assert rows["1 000 streams × 20 chunks/s: memory"] == ["240 MB", "**missed**"]
    assert rows["whole product at rest: memory"] == ["not measured", "–"]


def test_results_are_read_as_they_were_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    writer = results.Writer(tmp_path / "run.txt")
    writer.add_note("date", "2026-11-22")
    writer.add_note("gateway nginx", "1.22.1; http 1.1:\n keep-alive")
    writer.add_note("left out haproxy", "not installed")
    for sample in run().measured:
        writer.add(sample)
    writer.say(f"\n{report.whole(writer)}")
    writer.close()
    found = results.read(tmp_path / "run.txt")
    assert found.notes == writer.notes
    assert [sample.gateway for sample in found.measured] == [sample.gateway for sample in writer.measured]
    assert found.versions() == {"nginx": "1.22.1; http 1.1: keep-alive"}
    assert found.left_out() == {"haproxy": "not installed"}
    assert (tmp_path / "run.txt").read_text() == capsys.readouterr().out


def test_what_stands_between_marks_is_made_anew() -> None:
    end = "<!-- figures end -->"
    text = f"Before\n<!-- figures: claim -->\nold\n{end}\nafter\n<!-- figures: goals -->\n{end}\n"
    filled = documents.fill(text, run(), "benchmarks/results/x.txt", {})
    assert "old" not in filled
    assert filled.startswith("Before\n<!-- figures: claim -->\nOne request costs llmlb 66 µs of CPU")
    assert "136 × less than LiteLLM" in filled
    assert documents.fill(filled, run(), "benchmarks/results/x.txt", {}) == filled


def test_a_claim_says_nothing_of_whom_it_did_not_meet() -> None:
    alone = Results([], [Sample(C16, "llmlb", 0, {"cpu_us": 66.0})])
    assert documents.claim(alone) == (
        "One request costs llmlb 66 µs of CPU with everything on (1 KB asked and answered, 16 connections)."
    )


@pytest.mark.parametrize("palette", [picture.LIGHT, picture.DARK])
def test_the_picture_shows_every_gateway_that_made_no_errors(palette: picture.Palette) -> None:
    drawn = ET.fromstring(picture.draw(run(), palette))
    texts = ["".join(node.itertext()) for node in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"llmlb, everything on", "vllm-router", "litellm", "66", "9 000"} <= set(texts)
    assert "haproxy" not in texts


def test_documents_and_pictures_agree_with_the_results_that_they_name() -> None:
    named = documents.named()
    source = named.pop("")
    for place, text in documents.made_from(source, named.values()).items():
        assert place.read_text() == text, f"run: python -m benchmarks.side_by_side --write-docs {source.name}"
