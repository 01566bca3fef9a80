"""The node's settings are what docs/node.md says of them."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from django.core.management import call_command

from nodes.runtime.config import BadSetting, NodeConfig, read_config, variable_of
from tests.support.product import ROOT

ROWS = {
    name: (default.strip("`"), span)
    for name, default, span in re.findall(
        r"^\| `(LLM_RUNTIME_\w+)` \| (.*?) \| (.*?) \|", (ROOT / "docs" / "node.md").read_text(), flags=re.MULTILINE
    )
}
VARIABLES = {variable_of(field.name) for field in fields(NodeConfig)}
# Read where models are fetched: nodes/runtime/fetching/origins.py.
ELSEWHERE = {"LLM_RUNTIME_ALLOWED_ORIGINS"}
RANGES = {name: span for name, (_, span) in ROWS.items() if re.fullmatch(r"\d+–\d+", span)}


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_every_setting_is_documented_and_every_documented_one_exists() -> None:
    assert ROWS.keys() - ELSEWHERE == VARIABLES


@pytest.mark.parametrize("name", [name for name, (default, _) in ROWS.items() if default not in ("not set", "empty")])
def test_the_documented_default_is_the_default(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    unset = read_config()
    monkeypatch.setenv(name, ROWS[name][0])
    assert read_config() == unset


@pytest.mark.parametrize("name", RANGES)
def test_the_documented_range_is_the_range(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    low, high = (int(bound) for bound in RANGES[name].split("–"))
    for inside in (low, high):
        monkeypatch.setenv(name, str(inside))
        read_config()
    for outside in (low - 1, high + 1):
        monkeypatch.setenv(name, str(outside))
        with pytest.raises(BadSetting, match=name):
            read_config()


def test_a_value_may_come_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("a secret\n")
    monkeypatch.setenv("LLM_RUNTIME_API_KEY_FILE", str(tmp_path / "key"))
    assert read_config().api_key == "a secret"
    assert "a secret" not in repr(read_config())


def test_django_knows_the_command_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        call_command("node", "serve", "--help")
    assert ended.value.code == 0
    assert "LLM_RUNTIME_MODELS_DIR" in capsys.readouterr().out
