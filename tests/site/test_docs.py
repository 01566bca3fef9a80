"""The documentation says what the code does: settings, ids, links, commands."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import get_commands

from llmlb_site.lib.config import CLOUD_VARIABLES, read_config
from llmlb_site.serve import checks
from tests.support.product import ROOT

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SETTINGS = (ROOT / "docs" / "settings.md").read_text()
ROWS = {
    name: (default, span)
    for name, default, span in re.findall(r"^\| `(LLMLB_\w+)` \| (.*?) \| (.*?) \|", SETTINGS, flags=re.MULTILINE)
}


def configured(monkeypatch: pytest.MonkeyPatch, values: Mapping[str, str]) -> Any:
    for name in checks.variable_names():
        monkeypatch.delenv(name, raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return read_config(Path("/base"))


def test_every_setting_is_documented_and_every_documented_one_exists() -> None:
    assert set(ROWS) == set(checks.variable_names())


def test_every_variable_of_a_cloud_provider_is_documented() -> None:
    for names in CLOUD_VARIABLES.values():
        for name in names:
            assert f"| `{name}` |" in SETTINGS


@pytest.mark.parametrize("name", [name for name, (default, _) in ROWS.items() if default.startswith("`")])
def test_the_documented_default_is_the_default(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    default = ROWS[name][0].strip("`")
    if name == "LLMLB_DATA_DIR":
        default = "/base/var"
    assert configured(monkeypatch, {name: default}) == configured(monkeypatch, {})


@pytest.mark.parametrize("name", [name for name, (_, span) in ROWS.items() if re.fullmatch(r"\d+–\d+", span)])
def test_the_documented_range_is_the_range(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    low, high = (int(bound) for bound in ROWS[name][1].split("–"))
    configured(monkeypatch, {name: str(low)})
    configured(monkeypatch, {name: str(high)})
    for outside in (low - 1, high + 1):
        with pytest.raises(ImproperlyConfigured, match=name):
            configured(monkeypatch, {name: str(outside)})


@pytest.mark.parametrize("name", [name for name, (_, span) in ROWS.items() if span.startswith("`")])
def test_the_documented_choices_are_the_choices(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for choice in re.findall(r"`(\w+)`", ROWS[name][1]):
        configured(monkeypatch, {name: choice})
    with pytest.raises(ImproperlyConfigured) as refused:
        configured(monkeypatch, {name: "something-else"})
    assert set(re.findall(r"`(\w+)`", ROWS[name][1])) <= set(re.findall(r"\w+", str(refused.value)))


def test_every_id_of_a_check_is_documented() -> None:
    source = Path(checks.__file__).read_text()
    assert set(re.findall(r"llmlb\.serve\.[EW]\d+", source)) == set(re.findall(r"llmlb\.serve\.[EW]\d+", SETTINGS))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_documents_resolve(document: Path) -> None:
    text = document.read_text()
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if not re.match(r"[a-z]+:", target):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_and_make_targets_in_documents_exist(document: Path) -> None:
    text = document.read_text()
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z]+)", text, flags=re.MULTILINE)) <= targets
    assert set(re.findall(r"manage\.py ([a-z_]+)", text)) <= set(get_commands())
