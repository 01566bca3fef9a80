"""`manage.py llmlb …` from the same machine, without a key, and from another one, with one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nodes.fake_node import running_fake_node
from tests.support.product import ROOT, Product, free_port

Run = subprocess.CompletedProcess[str]
Cli = Callable[..., Run]


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    with (
        Product(tmp_path_factory.mktemp("cli")) as running,
        running_fake_node(["org/chat", "天気"], kind="xllm") as first,
        running_fake_node(["org/chat"], kind="vllm") as second,
    ):
        running.add_node("first", first.url)
        node = running.add_node("second", second.url)
        running.post(f"/api/nodes/{node['id']}/drain")
        yield running


def remote(product: Product, *arguments: str, key: str | None = None) -> Run:
    """As on another machine: no data directory of its own, only an address and a key."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    env = {**kept, "LLMLB_URL": product.url, "LLMLB_API_KEY": product.key if key is None else key}
    return subprocess.run(
        [sys.executable, "manage.py", "llmlb", *arguments],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture(params=["local", "remote"])
def cli(request: pytest.FixtureRequest, product: Product) -> Cli:
    if request.param == "local":
        return lambda *arguments: product.manage("llmlb", *arguments)
    return lambda *arguments: remote(product, *arguments)


def document(run: Run) -> Any:
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_status(cli: Cli, product: Product) -> None:
    told = document(cli("status", "--json"))
    assert (told["state"], told["url"]) == ("ready", product.url)
    numbers = ("nodes", "online", "routable", "models", "routable_models", "excluded_models")
    assert [told[name] for name in numbers] == [2, 2, 1, 2, 2, 0]
    lines = cli("status").stdout.splitlines()
    assert lines[0].startswith("llmlb   ready, version ")
    assert lines[1] == "Nodes   2, online 2, routable 1"


def test_nodes(cli: Cli) -> None:
    first, second = document(cli("nodes", "--json"))["nodes"]
    assert (first["name"], first["node_type"], first["executable_models"]) == ("first", "xllm", ["org/chat", "天気"])
    assert (second["draining"], second["excluded_models"]) == (True, [])
    heads, *rows = cli("nodes").stdout.splitlines()
    assert heads.split() == ["NODE", "STATE", "TYPE", "MODELS", "LATENCY", "ADDRESS"]
    assert [row.split()[:4] for row in rows] == [["first", "online", "xllm", "2"], ["second", "draining", "vllm", "1"]]


def test_models(cli: Cli) -> None:
    chat, weather = document(cli("models", "--json"))["models"]
    assert (chat["id"], chat["nodes"], chat["routable_on"]) == ("org/chat", ["first", "second"], ["first"])
    assert (weather["id"], weather["excluded_on"]) == ("天気", [])
    assert "org/chat  yes       first, second  -" in cli("models").stdout


def test_keys(cli: Cli, product: Product) -> None:
    [key] = document(cli("keys", "--json"))["keys"]
    assert (key["state"], key["owner"]["username"]) == ("active", "admin")
    table = cli("keys").stdout
    assert f"{key['key_prefix']}  active  admin" in table
    assert product.key not in table


def test_both_ways_tell_the_same(product: Product) -> None:
    for command in ("nodes", "models"):
        local, other = (
            document(product.manage("llmlb", command, "--json")),
            document(remote(product, command, "--json")),
        )
        for told in (local, other):
            for node in told.get("nodes", []):
                del node["latency_ms"], node["last_seen"]
        assert local == other


def test_a_key_that_may_not_is_told_so(product: Product) -> None:
    refused = remote(product, "nodes", key="sk_wrong")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == "llmlb: it wants an API key: set LLMLB_API_KEY\n"


def test_what_cannot_be_reached_is_exit_code_2(tmp_path: Path) -> None:
    nowhere = Product(tmp_path / "none", environment={"LLMLB_BOOTSTRAP_API_KEY": None})
    for command in ("nodes", "status", "keys"):
        run = nowhere.manage("llmlb", command)
        assert (run.returncode, run.stdout) == (2, ""), run.stderr
        assert "no database" in run.stderr
    run = nowhere.manage("llmlb", "nodes", "--url", f"http://127.0.0.1:{free_port()}")
    assert run.returncode == 2
    assert "cannot be reached" in run.stderr


def test_nodes_are_listed_while_the_server_is_down(tmp_path: Path) -> None:
    product = Product(tmp_path).start()
    product.stop()
    assert product.manage("llmlb", "nodes").stdout == "There are no nodes yet.\n"
    status = product.manage("llmlb", "status")
    assert status.returncode == 2
    assert "not running" in status.stdout
