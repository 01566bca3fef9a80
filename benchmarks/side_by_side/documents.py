"""Figures in documents come from a results file, never from a keyboard: what stands between two marks is made here.

A mark is `<!-- figures: NAME -->`, its end `<!-- figures end -->`; names are the keys of `PIECES`, or `case NAME`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from benchmarks.side_by_side import goals, picture, report, results, samples, scale
from benchmarks.side_by_side.goals import C16
from benchmarks.side_by_side.results import Results
from benchmarks.side_by_side.samples import OURS
from tests.support.product import ROOT

MARKED: Final = re.compile(r"(<!-- figures: (?P<name>[^>]+?) -->\n).*?(<!-- figures end -->)", re.DOTALL)
DOCUMENTS: Final = (ROOT / "docs" / "performance.md", ROOT / "docs" / "scaling.md", ROOT / "README.md")
PICTURES: Final[Mapping[Path, picture.Palette]] = {
    ROOT / "docs" / "images" / "performance.svg": picture.LIGHT,
    ROOT / "docs" / "images" / "performance-dark.svg": picture.DARK,
}
SOURCE: Final = re.compile(r"`benchmarks/results/([\w.-]+\.txt)`")


def fill(text: str, found: Results, source: str, history: Mapping[str, Results]) -> str:
    """The document with this run's figures, and those of the history's own runs by their files' names.

    Raises KeyError where a mark has a name that is not known.
    """

    def piece(match: re.Match[str]) -> str:
        name = match["name"]
        if name.startswith("case "):
            case = name.removeprefix("case ")
            made = case_piece(found, case)
        elif name == "run":
            made = run(found, source)
        elif name == "history":
            made = scale.piece(history)
        else:
            made = PIECES[name](found)
        return f"{match[1]}{made}\n{match[3]}"

    return MARKED.sub(piece, text)


def case_piece(found: Results, case: str) -> str:
    if case not in report.cases(found.measured):
        return "Not measured in this run."
    return "\n\n".join(filter(None, (report.case_table(found.measured, case), report.remarks(found.measured, case))))


def run(found: Results, source: str) -> str:
    """What was measured, where, and with what."""
    lines = [f"`{found.note('command')}` on {found.note('date')}; every sample is in `{source}`.", ""]
    lines += [f"- {name}: {found.note(name)}" for name in ("cores", "memory", "system", "python") if found.note(name)]
    lines += [f"- {name} {text}" for name, text in found.versions().items()]
    lines += [f"- not measured: {name}: {text}" for name, text in found.left_out().items()]
    return "\n".join(lines)


def claim(found: Results) -> str:
    """One sentence for those who read no table. Nothing that was not measured is in it."""
    own = samples.figure(found.measured, C16, OURS, "cpu_us")
    if own is None:
        return "Not measured yet."
    said = [f"One request costs llmlb {own.median:.0f} µs of CPU with everything on"]
    if ratio := samples.ratio(found.measured, C16, "cpu_us", OURS, "vllm-router"):
        said.append(f"{ratio.median:.1f} × what vllm-router takes, which keeps no history and checks no key")
    if ratio := samples.ratio(found.measured, C16, "cpu_us", "litellm", OURS):
        said.append(f"{ratio.median:.0f} × less than LiteLLM")
    return (
        f"{', '.join(said[:2])}{', and ' + said[2] if len(said) > 2 else ''} (1 KB asked and answered, 16 connections)."
    )


def single(*cases: str) -> Callable[[Results], str]:
    """The figures of cases that only llmlb takes part in."""

    def made(found: Results) -> str:
        rows = [
            [name.replace("_", " "), f"{value:.{2 if value < 10 else 1}f}"]
            for case in cases
            for sample in samples.of(found.measured, case, OURS)
            for name, value in sample.figures.items()
        ]
        return report.table(["figure", "value"], rows) if rows else "Not measured in this run."

    return made


def memory_of_processes(found: Results) -> str:
    """One sentence for the page on scaling."""
    one, two = (
        samples.figure(found.measured, goals.PROCESSES, OURS, f"{name}, pss_mb") for name in (goals.ONE, goals.TWO)
    )
    if one is None or two is None:
        return "Not measured yet."
    return (
        f"Under load one process takes {one.median:.0f} MB, and a `serve` of two with its parent {two.median:.0f} MB."
    )


PIECES: Final[Mapping[str, Callable[[Results], str]]] = {
    "claim": claim,
    "goals": report.goals_table,
    "summary": report.summary,
    "many streams": single(goals.MANY),
    "choosing": single(goals.CHOOSING),
    "processes": single(goals.PROCESSES),
    "memory of processes": memory_of_processes,
}


def named() -> dict[str, Path]:
    """The results files that the documents have their figures from, by their kind."""
    return {
        results.kind_of(path): path
        for name in SOURCE.findall(DOCUMENTS[0].read_text())
        for path in (results.FOLDER / name,)
    }


def made_from(path: Path, history: Iterable[Path]) -> dict[Path, str]:
    """Every document and picture as these results files want it."""
    found, source = results.read(path), f"benchmarks/results/{path.name}"
    runs = {one.name: results.read(one) for one in history}
    made = {document: fill(document.read_text(), found, source, runs) for document in DOCUMENTS}
    return made | {place: picture.draw(found, palette) for place, palette in PICTURES.items()}


def write(path: Path) -> None:
    """Fill every document, with the latest of the history's runs, and draw the pictures."""
    history = filter(None, (results.latest(kind) for kind in scale.KINDS))
    for place, text in made_from(path, history).items():
        place.write_text(text)
