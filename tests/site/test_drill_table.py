"""The table of the failure drills: misses keep their rows, and only a run of all goes into the documentation."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import run_drills
from tests.support.product import ROOT

MET = "def test_met(drill): drill.record('a', '1', goal='1', ok=True)\n"
MISSED = "def test_missed(drill): drill.record('b', '2', goal='1', ok=False)\n"
BROKEN = "def test_broken(drill):\n    drill.record('c', '3', goal='1', ok=True)\n    assert False\n"
SILENT = "def test_silent(drill): pass\n"
SKIPPED = "import pytest\n@pytest.mark.skip\ndef test_skipped(drill): pass\n"


def drilled(tmp_path: Path, source: str, *arguments: str) -> tuple[str, str | None]:
    """What a run of these drills prints, and the table that it leaves for the documentation."""
    (tmp_path / "drills").mkdir()
    (tmp_path / "drills" / "test_some.py").write_text(source)
    table = tmp_path / "table.md"
    plugins = ["-p", "tests.drills.conftest", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), *plugins, *arguments, str(tmp_path)]
    environment = {**os.environ, run_drills.TABLE: str(table)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return done.stdout, table.read_text() if table.exists() else None


def test_a_goal_that_is_missed_keeps_its_row(tmp_path: Path) -> None:
    printed, table = drilled(tmp_path, MET + MISSED)
    assert "1 error" in printed
    assert table is not None
    rows = [re.split(r" *\| *", line.strip("| ")) for line in table.splitlines()[2:]]
    assert rows == [["a", "1", "1", "yes", "`-k test_met`"], ["b", "2", "1", "missed", "`-k test_missed`"]]


@pytest.mark.parametrize(
    ("source", "arguments", "missing"),
    [
        pytest.param(MET + MISSED, ("-k", "met"), "test_missed", id="chosen by name"),
        pytest.param(MET + BROKEN, (), "test_broken", id="ended before its end"),
        pytest.param(MET + SILENT, (), "test_silent", id="no figure"),
        pytest.param(MET + SKIPPED, (), "test_skipped", id="skipped"),
        pytest.param(BROKEN + MET, ("-x",), "test_broken, test_met", id="stopped"),
    ],
)
def test_a_run_of_some_drills_leaves_no_table(
    tmp_path: Path, source: str, arguments: tuple[str, ...], missing: str
) -> None:
    printed, table = drilled(tmp_path, source, *arguments)
    assert table is None
    assert f"no table for the documentation, without {missing}\n" in printed
    assert ("| c " in printed) == (source in (MET + BROKEN, BROKEN + MET)), "what was measured is shown all the same"


def test_other_arguments_do_not_go_with_the_documentation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_drills, "run", lambda *arguments: pytest.fail("it ran"))
    assert run_drills.main(["--write-docs", "-k", "two words"]) == run_drills.USAGE
    assert "does not go with -k 'two words'" in capsys.readouterr().err


@pytest.fixture
def document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "reliability.md"
    path.write_text("before\n<!-- figures: drills -->\nold\n<!-- figures end -->\nafter\n")
    monkeypatch.setattr(run_drills, "DOCUMENT", path)
    monkeypatch.setattr(run_drills, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    return path


def test_a_run_of_all_says_what_ran_of_which_version_and_when(document: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing_a_goal(arguments: object, table: Path) -> int:
        table.write_text("| row |\n")
        return 1

    monkeypatch.setattr(run_drills, "run", missing_a_goal)
    assert run_drills.main(["--write-docs"]) == 1
    heading = r"`make drill ARGS=--write-docs` of \S+ on Python [\d.]+ on \d{4}-\d\d-\d\d: \d+ cores, [^\n]+\."
    figures = rf"<!-- figures: drills -->\n{heading}\n\n\| row \|\n<!-- figures end -->"
    assert re.fullmatch(rf"before\n{figures}\nafter\n", document.read_text())


def test_without_a_table_the_document_is_as_it_was(
    document: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = document.read_text()
    monkeypatch.setattr(run_drills, "run", lambda arguments, table: 0)
    assert run_drills.main(["--write-docs"]) == 1
    assert document.read_text() == before
    assert "reliability.md is as it was" in capsys.readouterr().err
