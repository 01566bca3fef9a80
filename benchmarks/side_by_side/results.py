"""A run as a text file in `benchmarks/results/`: what it was, every sample as it came, then the tables."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from benchmarks.side_by_side import install, machine, samples
from benchmarks.side_by_side.samples import Sample
from tests.support.product import ROOT

FOLDER: Final = ROOT / "benchmarks" / "results"
NOTE: Final = "# "
STAMP: Final = "%Y-%m-%d-%H%M%S"  # what the name of a file begins with; its kind follows
STAMP_LENGTH: Final = len("2026-11-22-080650")


@dataclass
class Results:
    """`notes` say when, where and with what; their order is that of the file."""

    notes: list[tuple[str, str]] = field(default_factory=list)
    measured: list[Sample] = field(default_factory=list)

    def note(self, name: str) -> str:
        return next((value for known, value in self.notes if known == name), "")

    def versions(self) -> dict[str, str]:
        """Of each gateway, in the order of the run."""
        return {name.removeprefix("gateway "): value for name, value in self.notes if name.startswith("gateway ")}

    def left_out(self) -> dict[str, str]:
        return {name.removeprefix("left out "): value for name, value in self.notes if name.startswith("left out ")}


class Writer(Results):
    """Results that are written and shown while they come, so that what ends early is kept."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("x")  # another run may have begun in the same second

    def say(self, line: str) -> None:
        print(line, flush=True)
        self._file.write(f"{line}\n")
        self._file.flush()

    def add_note(self, name: str, value: str) -> None:
        self.notes.append((name, " ".join(value.split())))
        self.say(f"{NOTE}{name}: {self.notes[-1][1]}")

    def add(self, sample: Sample) -> None:
        self.measured.append(sample)
        self.say(sample.line())

    def close(self) -> None:
        self._file.close()


def begin(module: str, arguments: Sequence[str], *, kind: str = "", whole: bool) -> Writer:
    """The results file of a run that begins now, with what must be known of it at its top.

    Only a `whole` run is worth keeping by itself; parts are for who makes them.
    """
    now = datetime.now().astimezone()
    name = "-".join(filter(None, (now.strftime(STAMP), kind, "" if whole else "part")))
    writer = Writer((FOLDER if whole else install.CACHE / "results") / f"{name}.txt")
    writer.add_note("command", shlex.join(["python", "-m", module, *arguments]))
    writer.add_note("date", f"{now:%Y-%m-%d}")
    for what, value in machine.describe().items():
        writer.add_note(what, value)
    return writer


def kind_of(path: Path) -> str:
    """What a file has results of; "" for gateways side by side."""
    return path.stem[STAMP_LENGTH:].removeprefix("-")


def latest(kind: str = "") -> Path | None:
    return max((path for path in FOLDER.glob("*.txt") if kind_of(path) == kind), default=None)


def read(path: Path) -> Results:
    text = path.read_text()
    notes = [
        (name, value)
        for line in text.splitlines()
        if line.startswith(NOTE)
        for name, _, value in [line.removeprefix(NOTE).partition(": ")]
    ]
    return Results(notes, samples.read(text))
