"""Numbers, ages and small drawings, as pages write them."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.admin.utils import display_for_value
from django.utils import timezone, translation

from llmlb_site.lib import reuse, svg
from llmlb_site.lib.templatetags import llmlb as tags


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(None, "–"), (0.42, "0.4 ms"), (12.3, "12 ms"), (999, "999 ms"), (3210, "3.2 s"), (125_000, "2 min 5 s")],
)
def test_durations(milliseconds: float | None, text: str) -> None:
    assert tags.duration(milliseconds) == text


def test_sizes_counts_and_shares() -> None:
    assert [tags.size(value) for value in (None, 512, 1536, 3 << 30)] == ["–", "512 B", "1.5 KiB", "3.0 GiB"]
    assert [tags.count(value) for value in (None, 0, 12345)] == ["–", "0", "12,345"]
    assert [tags.compact(value) for value in (9999, 12_345, 4_100_000)] == ["9,999", "12.3 k", "4.1 M"]
    assert [tags.percent(value) for value in (None, 0, 0.5, 0.99999, 1)] == ["–", "0 %", "50.0 %", "99.9 %", "100 %"]


def test_an_age_says_also_when() -> None:
    moment = timezone.now() - timedelta(seconds=75)
    text = tags.ago(moment)
    assert ">1m ago</time>" in text
    assert f'datetime="{moment.isoformat()}"' in text
    assert tags.ago(None) == "–"
    assert tags.moment(None) == "–"
    with translation.override("ja"):
        assert ">1分前</time>" in tags.ago(moment)


@pytest.mark.parametrize("language", ["en", "ja"])
def test_times_are_written_in_one_way_and_say_their_zone(language: str) -> None:
    at = datetime(2026, 11, 21, 20, 15, 3, tzinfo=UTC)
    with translation.override(language):
        assert ">2026-11-21 20:15:03 UTC</time>" in tags.moment(at)
        assert 'title="2026-11-21 20:15:03 UTC"' in tags.ago(at)
        # As Django's admin writes them.
        assert display_for_value(at, "–") == "2026-11-21 20:15:03 UTC"
        assert display_for_value(at.date(), "–") == "2026-11-21"


@pytest.mark.parametrize(
    ("highest", "top"), [(0, 4), (4, 4), (5, 10), (11, 20), (49, 50), (51, 60), (81, 100), (1001, 2000)]
)
def test_the_top_of_a_scale_is_a_round_number(highest: int, top: int) -> None:
    assert svg.nice_ceiling(highest) == top


@pytest.mark.parametrize(
    "drawing",
    [
        svg.sparkline([], title="none"),
        svg.sparkline([3.0], title="one"),
        svg.sparkline([1, None, 3, 4, None, None], title='a "quoted" <title>'),
        svg.bars([svg.Bar("a & b", 1, 2, 3), svg.Bar("empty", 0, 0, 0)], title="t", description="d"),
        svg.slots(2, 4, title="t"),
        svg.slots(300, 256, title="t"),
        svg.slots(0, 0, title="t"),
        svg.meter(1, 0, title="t"),
    ],
)
def test_drawings_are_well_formed_and_have_no_inline_style(drawing: str) -> None:
    ElementTree.fromstring(drawing)
    assert "style=" not in drawing


def test_a_gap_is_no_zero() -> None:
    drawing = svg.sparkline([5, 5, None, 5, 5], title="t")
    assert drawing.count("spark-line") == 2
    assert drawing.count("spark-gap") == 1


def test_a_full_node_shows_only_full_places() -> None:
    assert svg.slots(9, 4, title="t").count("slot-busy") == 4


def test_dear_answers_are_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("llmlb_site.lib.reuse.time.monotonic", lambda: clock[0])
    made = []

    @reuse.reused_by_cost(factor=20)
    def answer() -> int:
        made.append(clock[0])
        clock[0] += 0.5  # half a second of work: good for ten
        return len(made)

    assert [answer(), answer()] == [1, 1]
    clock[0] += 9.9
    assert answer() == 1
    clock[0] += 0.2
    assert answer() == 2
