"""The Japanese texts are complete, fit their originals, and are the ones that are compiled."""

from __future__ import annotations

import ast
import gettext
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.test import Client

from tests.support.product import ROOT

PLACE = ROOT / "locale" / "ja" / "LC_MESSAGES"
_FIELD = re.compile(r'(msgid_plural|msgid|msgstr(?:\[0\])?) (".*")')
_PLACEHOLDER = re.compile(r"%(?:\(\w+\))?[sd]")


def entries(file: Path) -> Iterator[dict[str, str]]:
    """What each entry of a .po file says; those that gettext calls fuzzy have the field `fuzzy`."""
    for block in file.read_text().split("\n\n"):
        entry: dict[str, str] = {"fuzzy": "yes"} if re.search("^#,.*fuzzy", block, re.MULTILINE) else {}
        name = ""
        for line in block.splitlines():
            if found := _FIELD.fullmatch(line):
                name = found[1].removesuffix("[0]")
                entry[name] = ast.literal_eval(found[2])
            elif line.startswith('"'):
                entry[name] += ast.literal_eval(line)
        if entry.get("msgid"):
            yield entry


@pytest.fixture(scope="module")
def texts() -> list[dict[str, str]]:
    return list(entries(PLACE / "django.po"))


def test_every_text_is_translated(texts: list[dict[str, str]]) -> None:
    assert len(texts) > 300
    assert [entry["msgid"] for entry in texts if not entry["msgstr"] or "fuzzy" in entry] == []


def test_a_translation_fills_in_the_same_values(texts: list[dict[str, str]]) -> None:
    def values(text: str) -> list[str]:
        return sorted(_PLACEHOLDER.findall(text))

    wrong = [
        entry["msgid"]
        for entry in texts
        if values(entry.get("msgid_plural", entry["msgid"])) != values(entry["msgstr"])
    ]
    assert wrong == []


def test_what_is_compiled_is_what_is_written(texts: list[dict[str, str]]) -> None:
    with (PLACE / "django.mo").open("rb") as file:
        compiled = gettext.GNUTranslations(file)
    stale = [
        entry["msgid"]
        for entry in texts
        if (
            compiled.ngettext(entry["msgid"], entry["msgid_plural"], 2)
            if "msgid_plural" in entry
            else compiled.gettext(entry["msgid"])
        )
        != entry["msgstr"]
    ]
    assert stale == [], "run scripts/messages"


@pytest.mark.django_db
def test_the_switch_names_each_language_in_itself() -> None:
    page = Client(headers={"accept-language": "ja"}).get("/login").content.decode()

    assert re.findall(r"<option [^>]*>([^<]*)</option>", page) == ["English", "日本語"]
