"""The run as a picture: CPU per request and per relayed chunk, a dot a gateway with the range of its rounds.

Two SVG files, for light and for dark pages; text is text, so that it can be read aloud and searched.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from benchmarks.side_by_side import samples
from benchmarks.side_by_side.goals import C16, NODE, STREAM
from benchmarks.side_by_side.results import Results
from benchmarks.side_by_side.samples import OURS, Sample, Spread

WIDTH: Final = 760
LEFT: Final = 215
RIGHT: Final = 110
ROW: Final = 26
TOP: Final = 58
GAP: Final = 64
NAMES: Final = {"llmlb": "llmlb, everything on", "llmlb-nopayloads": "llmlb, bodies not kept"}


@dataclass(frozen=True, slots=True)
class Palette:
    background: str
    text: str
    faint: str
    line: str
    ours: str
    theirs: str


LIGHT: Final = Palette("#ffffff", "#1c2128", "#57606a", "#d8dee4", "#0b62d6", "#6e7781")
DARK: Final = Palette("#0d1117", "#e6edf3", "#9aa4af", "#30363d", "#6cb0ff", "#9aa4af")


def draw(results: Results, palette: Palette) -> str:
    """Returns: the SVG document."""
    panels = [
        (f"CPU µs per request ({C16.replace('c=', '')} connections)", rows_of(results.measured, C16), 0),
        (
            f"CPU µs per relayed chunk ({STREAM.replace('stream, c=', '')} streams)",
            rows_of(results.measured, STREAM),
            1,
        ),
    ]
    parts, top = [], 0
    for title, rows, digits in panels:
        if rows:
            parts.append(panel(title, rows, digits, top, palette))
            top += TOP + ROW * len(rows) + GAP
    height = max(top - GAP + 64, 80)
    note = (
        f"Median and range of the rounds, on one core, {results.note('date')}. "
        "Less is better; each line to the right is ten times more."
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="14">'
        f"<title>CPU per request and per chunk of llmlb and other gateways</title>"
        f'<rect width="{WIDTH}" height="{height}" fill="{palette.background}"/>{"".join(parts)}'
        f'<text x="16" y="{height - 14}" font-size="12" fill="{palette.faint}">{escape(note)}</text></svg>\n'
    )


def rows_of(measured: Sequence[Sample], case: str) -> list[tuple[str, Spread]]:
    """Cheapest first, as documented for production; a row with errors is no row."""
    found = []
    for gateway in dict.fromkeys(sample.gateway for sample in measured if sample.case == case):
        spread = samples.figure(measured, case, gateway, "cpu_us")
        if gateway == NODE or gateway.endswith("-default") or samples.errors(measured, case, gateway):
            continue
        if spread is not None:
            found.append((gateway, spread))
    return sorted(found, key=lambda row: row[1].median)


def panel(title: str, rows: Sequence[tuple[str, Spread]], digits: int, top: int, palette: Palette) -> str:
    low = math.floor(math.log10(min(spread.low for _, spread in rows)))
    high = math.ceil(math.log10(max(spread.high for _, spread in rows)))

    def x(value: float) -> float:
        return LEFT + (math.log10(value) - low) / max(1, high - low) * (WIDTH - LEFT - RIGHT)

    bottom = top + TOP + ROW * len(rows)
    parts = [
        f'<text x="16" y="{top + 28}" font-size="16" font-weight="600" fill="{palette.text}">{escape(title)}</text>'
    ]
    for power in range(low, high + 1):
        at = x(10.0**power)
        parts.append(
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{top + TOP - 12}" y2="{bottom}" stroke="{palette.line}"/>'
            f'<text x="{at:.1f}" y="{bottom + 18}" font-size="12" text-anchor="middle" fill="{palette.faint}">'
            f"{10**power:,}</text>".replace(",", " ")
        )
    for number, (name, spread) in enumerate(rows):
        parts.append(
            row(
                name,
                spread,
                digits,
                top + TOP + ROW * number + 6,
                x(spread.low),
                x(spread.median),
                x(spread.high),
                palette,
            )
        )
    return "".join(parts)


def row(
    name: str, spread: Spread, digits: int, y: float, low: float, middle: float, high: float, palette: Palette
) -> str:
    is_ours = name.startswith(OURS)
    colour, weight = (palette.ours, 600) if is_ours else (palette.theirs, 400)
    text = palette.text if is_ours else palette.faint
    value = f"{spread.median:,.{digits}f}".replace(",", " ")
    return (
        f'<text x="16" y="{y + 5}" font-weight="{weight}" fill="{text}">{escape(NAMES.get(name, name))}</text>'
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="3" '
        f'stroke-linecap="round" opacity="0.5"/>'
        f'<circle cx="{middle:.1f}" cy="{y}" r="6" fill="{colour}"/>'
        f'<text x="{high + 12:.1f}" y="{y + 5}" font-weight="{weight}" fill="{palette.text}">{value}</text>'
    )
