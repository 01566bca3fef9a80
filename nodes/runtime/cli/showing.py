"""What commands print: tables and sizes for people, JSON for scripts, a bar for what takes long."""

from __future__ import annotations

import json
import shutil
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Final, TextIO

GAP: Final = "  "
BAR_CELLS: Final = 24
MIN_CUT: Final = 12
_SIZES: Final = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def print_json(document: Any) -> None:
    print(json.dumps(document, ensure_ascii=False, indent=2))


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as they must be. On a terminal that is too narrow the last one is cut."""
    widths = [max(_width(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    if sys.stdout.isatty():
        before = sum(widths[:-1]) + len(GAP) * (len(widths) - 1)
        widths[-1] = max(MIN_CUT, min(widths[-1], shutil.get_terminal_size().columns - before))
    for row in [heads, *rows]:
        cells = [_padded(_cut(text, width), width) for text, width in zip(row, widths, strict=True)]
        print(GAP.join(cells).rstrip())


def print_facts(facts: Mapping[str, str]) -> None:
    """Name and value, one a line; those without a value are left out."""
    width = max(map(_width, facts), default=0)
    for name, value in facts.items():
        if value:
            print(f"{_padded(name, width)}{GAP}{value}")


def size(count: float | None) -> str:
    """Bytes for people: `1.5 GiB`."""
    if count is None:
        return "?"
    unit, name = next(((unit, name) for unit, name in _SIZES if count >= unit), (1, "B"))
    return f"{count / unit:.0f} {name}" if unit == 1 else f"{count / unit:.1f} {name}"


def duration(seconds: float) -> str:
    """`4 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class Bar:
    """How far something is: one line that is drawn over on a terminal, a line each ten percent elsewhere."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._told = -1

    def show(self, *, done: int, total: int | None, speed: float, note: str = "") -> None:
        """Sizes are bytes, `speed` bytes a second."""
        text = bar_line(done=done, total=total, speed=speed, note=note)
        if self._live:
            columns = shutil.get_terminal_size().columns
            print(f"\r\x1b[K{text[: columns - 1]}", end="", file=self._stream, flush=True)
        elif total and (step := 10 * done // total) > self._told:
            self._told = step
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Leave the last state standing."""
        if self._live:
            print(file=self._stream, flush=True)


def bar_line(*, done: int, total: int | None, speed: float, note: str = "") -> str:
    """`[########----------------]  33 %  1.0 GiB / 3.0 GiB  12.0 MiB/s  2 min 51 s left`."""
    if not total:
        return GAP.join(part for part in (size(done), f"{size(speed)}/s" if speed else "", note) if part)
    full = BAR_CELLS * min(done, total) // total
    left = duration((total - done) / speed) + " left" if speed > 0 and done < total else ""
    parts = [
        f"[{'#' * full}{'-' * (BAR_CELLS - full)}]",
        f"{100 * min(done, total) // total:3d} %",
        f"{size(done)} / {size(total)}",
        f"{size(speed)}/s" if speed else "",
        left,
        note,
    ]
    return GAP.join(part for part in parts if part)


def _width(text: str) -> int:
    """Cells that a text takes on a terminal: Japanese characters take two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _width(text))


def _cut(text: str, width: int) -> str:
    if _width(text) <= width:
        return text
    while text and _width(text) > width - 1:
        text = text[:-1]
    return text + "…"
