"""Tables and bars in a terminal."""

from __future__ import annotations

import pytest

from nodes.runtime.cli.showing import bar_line, duration, print_table, size


def test_a_bar_tells_share_sizes_speed_and_time_left() -> None:
    assert bar_line(done=1 << 30, total=3 << 30, speed=12 << 20) == (
        "[########----------------]   33 %  1.0 GiB / 3.0 GiB  12.0 MiB/s  2 min 51 s left"
    )
    assert bar_line(done=100, total=100, speed=0) == "[########################]  100 %  100 B / 100 B"
    assert bar_line(done=2048, total=None, speed=0, note="org/tiny") == "2.0 KiB  org/tiny"


def test_columns_are_as_wide_as_japanese_is(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["A", "B"], [["天気", "1"], ["abcd", "2"]])
    assert capsys.readouterr().out == "A     B\n天気  1\nabcd  2\n"


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (None, "?")])
def test_sizes(count: int | None, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (7500, "2 h 5 min")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
