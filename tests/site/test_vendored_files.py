"""Files of others are the ones that VERSIONS.txt names, and every one of them is named."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.support.product import ROOT


@pytest.mark.parametrize("directory", ["static/vendor", "tests/e2e/vendor"])
def test_vendored_files_are_what_they_say(directory: str) -> None:
    place = ROOT / directory
    listed = _listed(place / "VERSIONS.txt")
    present = {path.name for path in place.iterdir() if path.suffix != ".txt"}
    assert present == set(listed)
    assert {name: hashlib.sha256((place / name).read_bytes()).hexdigest() for name in listed} == listed


def _listed(file: Path) -> dict[str, str]:
    rows = [line.split() for line in file.read_text().splitlines() if line and not line.startswith("#")]
    return {name: digest for name, _package, digest in rows}
