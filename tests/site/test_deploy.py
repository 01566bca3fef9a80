"""What deploy/ has can be read by what it is for, and speaks of settings and files that exist."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.conf import settings

from llmlb_site.serve import checks
from llmlb_site.serve.processes import GRACE_SECONDS
from routing.gateway.operations import PATHS
from tests.drills.balancers import example
from tests.support.product import ROOT

DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
SETTINGS = set(checks.variable_names())
ENDPOINTS_SECONDS = 2  # until the nodes of a Kubernetes cluster have heard that a pod is not ready, in a quiet one


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


def in_unit(unit: Path, name: str) -> str:
    found = re.search(rf"^{name}=(.+)$", unit.read_text(), re.MULTILINE)
    assert found is not None, f"{unit.name} has no {name}"
    return found[1]


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
    default = settings.LLMLB.drain_seconds
    assert seconds(compose()["services"]["gateway"]["stop_grace_period"]) > default + GRACE_SECONDS
    drain = int(objects("ConfigMap")["llmlb"]["data"]["LLMLB_DRAIN_SECONDS"])
    assert pod("gateway")["terminationGracePeriodSeconds"] > drain + GRACE_SECONDS
    for unit in UNITS:
        if "manage.py serve" in unit.read_text():
            assert int(in_unit(unit, "TimeoutStopSec")) > default + GRACE_SECONDS


def test_a_gateway_that_leaves_takes_requests_until_it_is_sent_no_more() -> None:
    told = objects("ConfigMap")["llmlb"]["data"]
    (container,) = pod("gateway")["containers"]
    asked = container["readinessProbe"]
    notices = asked["periodSeconds"] * asked["failureThreshold"]
    assert notices + ENDPOINTS_SECONDS < int(told["LLMLB_LAME_DUCK_SECONDS"]) < int(told["LLMLB_DRAIN_SECONDS"])

    found = re.search(r"check inter (\d+)s fall (\d+)", example("haproxy"))
    assert found is not None
    lame_duck = int(in_unit(DEPLOY / "systemd" / "llmlb-gateway.service", "Environment=LLMLB_LAME_DUCK_SECONDS"))
    assert int(found[1]) * int(found[2]) < lame_duck


def test_probes_ask_what_the_gateway_answers() -> None:
    (container,) = pod("gateway")["containers"]
    asked = {name: container[name]["httpGet"] for name in ("readinessProbe", "livenessProbe", "startupProbe")}
    paths = {name: each["path"] for name, each in asked.items()}
    assert paths == {"readinessProbe": "/readyz", "livenessProbe": "/livez", "startupProbe": "/livez"}
    assert set(paths.values()) <= PATHS
    assert {each["port"] for each in asked.values()} == {"http"}
    assert container["ports"] == [{"name": "http", "containerPort": settings.LLMLB.port}]
    healthcheck = compose()["services"]["gateway"]["healthcheck"]["test"]
    assert f"http://127.0.0.1:{settings.LLMLB.port}/livez" in healthcheck[-1]


def test_what_the_manifests_refer_to_is_there() -> None:
    workloads = {**objects("Deployment"), **objects("StatefulSet")}
    for workload in workloads.values():
        template = workload["spec"]["template"]
        assert workload["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
        claimed = {each["metadata"]["name"] for each in workload["spec"].get("volumeClaimTemplates", [])}
        volumes = claimed | {each["name"] for each in template["spec"].get("volumes", [])}
        for container in template["spec"]["containers"]:
            assert {each["name"] for each in container.get("volumeMounts", [])} <= volumes
            assert {each["configMapRef"]["name"] for each in container.get("envFrom", [])} <= set(objects("ConfigMap"))
    for service in objects("Service").values():
        (container,) = workloads[service["spec"]["selector"]["app"]]["spec"]["template"]["spec"]["containers"]
        offered = {each.get("name", each["containerPort"]) for each in container["ports"]}
        assert {each.get("targetPort", each["port"]) for each in service["spec"]["ports"]} <= offered
    assert objects("PodDisruptionBudget")["gateway"]["spec"]["selector"] == workloads["gateway"]["spec"]["selector"]


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "Service"])
def test_kubernetes_knows_every_field(kind: str) -> None:
    """kubectl leaves out what it does not know: all of ours must come back from a change that needs no server."""
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl on this machine")
    for name, ours in objects(kind).items():
        change = ("selector", f"app={name}") if kind == "Service" else ("env", "X=1")
        done = subprocess.run(
            ["kubectl", "set", *change, "--local", "-o", "json", "-f", "-"],
            input=yaml.safe_dump(ours),
            capture_output=True,
            text=True,
            env={**os.environ, "KUBECONFIG": os.devnull},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert lost(ours, json.loads(done.stdout)) == [], name


def lost(ours: Any, theirs: Any, at: str = "") -> list[str]:
    """Where something of ours is not in theirs."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return [path for key, each in ours.items() for path in lost(each, theirs.get(key), f"{at}.{key}")]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) <= len(theirs):
        return [path for n, each in enumerate(ours) for path in lost(each, theirs[n], f"{at}[{n}]")]
    return [] if ours == theirs or (ours == {} and theirs is None) else [at]


def test_docker_takes_the_compose_file() -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("no docker compose on this machine")
    told = [docker, "compose", "-f", str(DEPLOY / "compose.yaml"), "config", "--quiet"]
    environment = {**os.environ, "POSTGRES_PASSWORD": "a password"}
    done = subprocess.run(told, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr


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
