"""Small figures as SVG text, coloured by static/css/figures.css: no script, no inline style, readable without sight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

WIDTH: Final = 600.0
SLOTS_DRAWN: Final = 16


@dataclass(frozen=True, slots=True)
class Bar:
    """One column of a chart: what went well, above it what was the client's own doing, above that what failed."""

    label: str
    good: int
    other: int
    bad: int

    @property
    def total(self) -> int:
        return self.good + self.other + self.bad


def sparkline(values: Sequence[float | None], *, title: str, tall: bool = False) -> SafeString:
    """A line over `values`, oldest first; None is a gap, drawn as a red mark at the foot."""
    height = 100.0
    peak = max((value for value in values if value is not None), default=0.0) or 1.0
    step = WIDTH / max(1, len(values) - 1)
    runs = _runs([None if value is None else height - 8 - value / peak * (height - 16) for value in values], step)
    gaps = [number * step for number, value in enumerate(values) if value is None]
    return format_html(
        '<svg class="spark{}" viewBox="0 0 600 100" preserveAspectRatio="none" role="img" aria-label="{}">{}{}{}</svg>',
        " is-tall" if tall else "",
        title,
        format_html_join("", '<path class="spark-area" d="{}"/>', ((_area(run, height),) for run in runs)),
        format_html_join("", '<path class="spark-line" d="{}"/>', ((_line(run),) for run in runs)),
        format_html_join(
            "", '<rect class="spark-gap" x="{}" y="82" width="5" height="18"/>', ((f"{x:.0f}",) for x in gaps)
        ),
    )


def bars(columns: Sequence[Bar], *, title: str, description: str) -> SafeString:
    """Columns side by side, scaled to the highest; each tells its numbers when pointed at."""
    peak = nice_ceiling(max((column.total for column in columns), default=0))
    pitch = WIDTH / max(1, len(columns))
    body = format_html_join(
        "", "{}", ((_column(column, number * pitch, pitch, peak),) for number, column in enumerate(columns))
    )
    lines = mark_safe("".join(f'<path class="grid-line" d="M0 {y}H600"/>' for y in (0.5, 50, 99.5)))  # noqa: S308
    return format_html(
        '<svg viewBox="0 0 600 100" preserveAspectRatio="none" role="img"><title>{}</title><desc>{}</desc>{}{}</svg>',
        title,
        description,
        lines,
        body,
    )


def nice_ceiling(highest: int) -> int:
    """The smallest of 4, 10, 20, 30, 40, 50, 60, 80, 100 … that is not below `highest`: the top of a scale.

    All of them are even, so that half of it is a whole number of requests too.
    """
    if highest <= 4:
        return 4
    power = 10
    while True:
        for factor in (1, 2, 3, 4, 5, 6, 8):
            if power * factor >= highest:
                return power * factor
        power *= 10


def slots(busy: int, limit: int, *, title: str) -> SafeString:
    """One box for each request that a node takes at once; a bar where they are many, or without a limit."""
    if not 0 < limit <= SLOTS_DRAWN:
        return meter(busy, limit or max(1, busy), title=title)
    boxes = (("busy" if number < busy else "free", number * 13 + 0.5) for number in range(limit))
    width = limit * 13
    return format_html(
        '<svg class="slots" viewBox="0 0 {} 11" width="{}" height="11" role="img" aria-label="{}">{}</svg>',
        width,
        width,
        title,
        format_html_join("", '<rect class="slot-{}" x="{}" y="0.5" width="10" height="10" rx="2.5"/>', boxes),
    )


def meter(value: float, limit: float, *, title: str) -> SafeString:
    """A bar filled by `value` of `limit`."""
    share = min(1.0, max(0.0, value / limit)) if limit else 0.0
    return format_html(
        '<svg class="meter-bar{}" viewBox="0 0 100 8" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<rect class="meter-back" width="100" height="8"/><rect class="meter-fill" width="{}" height="8"/></svg>',
        " is-full" if share >= 1 else "",
        title,
        f"{share * 100:.1f}",
    )


Point = tuple[float, float]


def _runs(heights: Sequence[float | None], step: float) -> list[list[Point]]:
    """The line's unbroken parts. A single value becomes a short dash, so that it is seen."""
    runs: list[list[Point]] = [[]]
    for number, y in enumerate(heights):
        if y is None:
            runs.append([])
        else:
            runs[-1].append((number * step, y))
    return [run if len(run) > 1 else [run[0], (run[0][0] + step / 2, run[0][1])] for run in runs if run]


def _line(run: Sequence[Point]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in run)


def _area(run: Sequence[Point], height: float) -> str:
    return f"{_line(run)}L{run[-1][0]:.1f} {height:.0f}L{run[0][0]:.1f} {height:.0f}Z"


def _column(column: Bar, left: float, pitch: float, peak: int) -> SafeString:
    x, width = f"{left + pitch * 0.12:.1f}", f"{pitch * 0.76:.1f}"
    if not column.total:
        return format_html('<rect class="bar-none" x="{}" y="98.5" width="{}" height="1.5"/>', x, width)
    parts, top = [], 100.0
    for name, number in (("ok", column.good), ("other", column.other), ("bad", column.bad)):
        height = number / peak * 100
        top -= height
        if number:
            parts.append((name, x, f"{top:.2f}", width, f"{height:.2f}"))
    boxes = format_html_join("", '<rect class="bar-{}" x="{}" y="{}" width="{}" height="{}"/>', parts)
    return format_html("<g><title>{}</title>{}</g>", column.label, boxes)
