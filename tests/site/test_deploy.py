"""What deploy/ has can be read by what it is for, and speaks of settings and files that exist."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmlb_site.serve import checks
from routing.gateway.operations import PATHS
from tests.support.product import ROOT

DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
SETTINGS = set(checks.variable_names())


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return found


def objects(kind: str) -> dict[str, dict[str, Any]]:
    documents = yaml.safe_load_all((DEPLOY / "kubernetes" / "llmlb.yaml").read_text())
    return {each["metadata"]["name"]: each for each in documents if each["kind"] == kind}


def pod(name: str) -> dict[str, Any]:
    found: dict[str, Any] = objects("Deployment")[name]["spec"]["template"]["spec"]
    return found


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


@pytest.mark.parametrize(
    "path", sorted(path for path in DEPLOY.rglob("*") if path.is_file()), ids=lambda path: path.name
)
def test_every_setting_that_is_named_exists(path: Path) -> None:
    named = {name.removesuffix("_FILE") for name in re.findall(r"\bLLMLB_[A-Z_]+\b", path.read_text())}
    assert named - {"LLMLB_PORT"} <= SETTINGS


def test_gateway_worker_and_beat_are_one_image_with_the_same_settings() -> None:
    services = compose()["services"]
    for name in ("gateway", "worker", "beat"):
        assert {"LLMLB_DATABASE_URL", "LLMLB_REDIS_URL", "LLMLB_SECRET_KEY_FILE"} <= set(services[name]["environment"])
        assert services[name]["secrets"] == ["secret_key"]
        assert set(services[name]["depends_on"]) == {"postgres", "redis"}
        (container,) = pod(name)["containers"]
        assert container["command"] == services[name]["command"]
        given = {each["name"] for each in container["env"]} | set(objects("ConfigMap")["llmlb"]["data"])
        assert {"LLMLB_DATABASE_URL", "LLMLB_REDIS_URL", "LLMLB_SECRET_KEY_FILE"} <= given


def test_a_gateway_has_longer_to_stop_than_it_may_drain() -> None:
    assert seconds(compose()["services"]["gateway"]["stop_grace_period"]) > 30
    drain = int(objects("ConfigMap")["llmlb"]["data"]["LLMLB_DRAIN_SECONDS"])
    assert pod("gateway")["terminationGracePeriodSeconds"] > drain + 10
    for unit in UNITS:
        if "manage.py serve" in unit.read_text():
            assert "TimeoutStopSec=60" in unit.read_text()


def test_probes_ask_what_the_gateway_answers() -> None:
    (container,) = pod("gateway")["containers"]
    paths = {name: container[name]["httpGet"]["path"] for name in ("readinessProbe", "livenessProbe", "startupProbe")}
    assert paths == {"readinessProbe": "/readyz", "livenessProbe": "/livez", "startupProbe": "/livez"}
    assert set(paths.values()) <= PATHS


def test_what_the_dockerfile_copies_is_there() -> None:
    copied = re.findall(r"^COPY (.+) \S+$", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    assert all((ROOT / name).exists() for names in copied for name in names.split())


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_takes_the_unit(unit: Path, tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd-analyze on this machine")
    here = tmp_path / unit.name
    here.write_text(unit.read_text().replace("/opt/llmlb/.venv/bin/", f"{Path(sys.executable).parent}/"))
    done = subprocess.run([program, "verify", "--man=no", str(here)], capture_output=True, text=True, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if unit.name in line]) == (0, [])
