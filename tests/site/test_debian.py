"""What installing a package of Debian leaves behind."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from scripts import debian


def test_packages_are_installed_without_starting_their_services(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = tmp_path / "policy-rc.d"
    monkeypatch.setattr(debian, "POLICY", policy)
    with pytest.raises(debian.NotInstalled), debian.no_services_started():
        assert subprocess.run([policy, "nginx", "start"], check=False).returncode == 101, "Debian's word for: do not"
        raise debian.NotInstalled("no such package")
    assert not policy.exists()


def test_an_operator_s_own_policy_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tmp_path / "policy-rc.d"
    policy.write_text("mine")
    monkeypatch.setattr(debian, "POLICY", policy)
    with debian.no_services_started():
        pass
    assert policy.read_text() == "mine"


def test_a_program_that_cannot_be_had_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(debian.NotInstalled, match=r"^no-such-program is not installed \(apt-get install no-such\)"):
        debian.program("no-such-program", "no-such")
