"""A backup made as docs/backup.md says, of an installation that is in use, brings all of it back."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nodes.fake_node import FakeNode
from tests.blackbox.conftest import MakeNode, MakeProduct, add_and_route, models
from tests.drills.servers import PostgreSQL
from tests.support.product import ROOT, Product, wait_until

HISTORY = "/api/dashboard/request-responses"


def blocks(heading: str) -> list[str]:
    """The commands of a section of the page."""
    page = (ROOT / "docs" / "backup.md").read_text()
    section = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"```sh\n(.*?)```", section, flags=re.DOTALL)


def run(commands: str, directory: Path, **environment: str) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    shell = ["sh", "-e", "-c", commands]
    done = subprocess.run(shell, cwd=directory, env={"PATH": path, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def use(product: Product, node: FakeNode) -> str:
    """One node, one request with bodies, one more key. Returns that key."""
    add_and_route(product, node)
    body = {"model": "model-a", "messages": [{"role": "user", "content": "Hello"}]}
    assert product.post("/v1/chat/completions", json=body).status_code == 200
    wait_until(lambda: product.get(HISTORY, params={"kind": "chat"}).json()["total"], seconds=5, what="it is recorded")
    minted = product.post("/api/api-keys", json={"name": "app", "permissions": ["openai.models.read", "logs.read"]})
    return str(minted.json()["key"])


def assert_all_is_back(product: Product, key: str) -> None:
    product.key = key
    wait_until(lambda: "model-a" in models(product), seconds=15, what="the node is back, and the key works")
    (record,) = product.get(HISTORY, params={"kind": "chat"}).json()["records"]
    detail = product.get(f"{HISTORY}/{record['id']}").json()
    assert (detail["readable"], detail["request_body"]["model"], len(detail["attempts"])) == (True, "model-a", 1)


@pytest.mark.parametrize("way", ["program", "python"])
def test_sqlite(way: str, product: MakeProduct, node: MakeNode, tmp_path: Path) -> None:
    with_program, with_python, restore = blocks("SQLite")
    if way == "program" and shutil.which("sqlite3") is None:
        pytest.skip("no sqlite3 program on this machine")
    running = product(data_dir=tmp_path / "here" / "var")
    with running:
        key = use(running, node())
        here = tmp_path / "here"
        run(with_program if way == "program" else with_python, here)
        run("cp -p var/secret_key backup.secret_key", here)
    there = tmp_path / "there"
    (there / "var").mkdir(parents=True, mode=0o700)
    for name in ("backup.sqlite3", "backup.secret_key"):
        shutil.copy2(here / name, there)
    run(restore, there)
    with product(data_dir=there / "var", environment={"LLMLB_BOOTSTRAP_API_KEY": None}) as restored:
        assert_all_is_back(restored, key)


def test_postgresql(product: MakeProduct, node: MakeNode, tmp_path: Path) -> None:
    if shutil.which("pg_dump") is None:
        pytest.skip("no pg_dump on this machine")
    dump, restore = blocks("PostgreSQL")
    secret = "the secret key of the installation, kept apart from its database"
    with PostgreSQL() as server:
        with product(new=True, environment={"LLMLB_DATABASE_URL": server.url, "LLMLB_SECRET_KEY": secret}) as running:
            key = use(running, node())
            run(dump, tmp_path, LLMLB_DATABASE_URL=server.url)
        other = server.url.replace("/postgres", "/restored")
        server.execute("CREATE DATABASE restored")
        run(restore, tmp_path, LLMLB_DATABASE_URL=other)
        given = {"LLMLB_DATABASE_URL": other, "LLMLB_SECRET_KEY": secret, "LLMLB_BOOTSTRAP_API_KEY": None}
        with product(new=True, environment=given) as restored:
            assert_all_is_back(restored, key)
