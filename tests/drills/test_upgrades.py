"""Every release's database, filled, is brought up to date by a start, and nothing of it is lost."""

from __future__ import annotations

import hashlib
import math
import re
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps

from tests.drills.conftest import Drill, MakeNodeProcess
from tests.drills.fleet import seconds_until
from tests.drills.old_version import BODIES, DAYS, MODEL, RELEASED, RELEASES
from tests.drills.servers import PostgreSQL
from tests.support.product import ROOT, Product, wait_until

HISTORY = "/api/dashboard/request-responses"


def test_a_migration_that_was_released_never_changes() -> None:
    assert {path: hashlib.sha256((ROOT / path).read_bytes()).hexdigest() for path in RELEASED} == RELEASED


@pytest.mark.parametrize("release", RELEASES)
def test_every_migration_of_a_release_is_kept_as_it_was(release: str) -> None:
    for app, last in RELEASES[release].items():
        directory = Path(apps.get_app_config(app).path) / "migrations"
        names = [path.relative_to(ROOT).as_posix() for path in directory.glob("0*.py") if path.stem <= last]
        assert names
        assert set(names) <= set(RELEASED)


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("database", ["SQLite", "PostgreSQL"])
def test_a_database_of_an_older_release_is_brought_up_to_date(
    release: str, database: str, drill: Drill, node_process: MakeNodeProcess, tmp_path: Path
) -> None:
    rows = 1_000_000 if drill.full else 5_000
    server = PostgreSQL() if database == "PostgreSQL" else None
    environment = {"LLMLB_BOOTSTRAP_API_KEY": None, "LLMLB_DATABASE_URL": server.url if server else None}
    product = Product(tmp_path / "data", environment=environment)
    product.key = f"sk_{secrets.token_hex(24)}"
    try:
        if server:
            server.start()
        make_old(product, release, rows, node_process((MODEL,)).url)
        product.launch()
        ready = seconds_until(product.is_ready, within=300 if drill.full else 60)
        kept = what_is_kept(product) if ready < math.inf else {"ready": False}
        product.stop()
    finally:
        product.end()
        if server:
            server.end()
    took = migration_seconds(product)
    goal = {"requests": rows, "totals": rows, "bodies": BODIES, "found": f"day-{DAYS}-{rows // DAYS}", "answer": 200}
    drill.record(
        f"{database} of {release} with {rows} requests brought up to date",
        f"{took:.1f} s; {kept}",
        goal=f"{goal}",
        ok=kept == goal,
    )


def make_old(product: Product, release: str, rows: int, node_url: str) -> None:
    """Raises: subprocess.CalledProcessError."""
    command = [sys.executable, "-m", "tests.drills.old_version", release, str(rows), node_url, product.key]
    environment = {**product.environment(), "DJANGO_SETTINGS_MODULE": "llmlb_site.settings"}
    product.data_dir.mkdir(mode=0o700)
    subprocess.run(command, cwd=ROOT, env=environment, check=True)


def what_is_kept(product: Product) -> dict[str, Any]:
    """Of requests, totals, bodies and search; and whether the key of then and the node of then still serve."""
    everything = product.get(HISTORY).json()["total"]
    oldest = [product.get(f"{HISTORY}/{number}").json() for number in range(1, BODIES + 1)]
    readable = [each for each in oldest if each["readable"] and each["request_body"]["messages"] and each["attempts"]]
    day = product.get(HISTORY, params={"request_id": f"day-{DAYS}-1"}).json()["records"][0]["started_at"]
    found = product.get(HISTORY, params={"q": "MODEL-", "end_time": day}).json()["records"][0]["request_id"]
    wait_until(lambda: _offered(product), seconds=15, what="the node is checked")
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
    return {
        "requests": everything,
        "totals": product.get("/api/dashboard/stats/tokens").json()["request_count"],
        "bodies": len(readable),
        "found": found,
        "answer": product.post("/v1/chat/completions", json=body).status_code,
    }


def _offered(product: Product) -> bool:
    return MODEL in {model["id"] for model in product.get("/v1/models").json()["data"]}


def migration_seconds(product: Product) -> float:
    """As the log says it, without the console's colours; infinity where it does not."""
    found = re.search(r"database migrated.*seconds=([\d.]+)", re.sub(r"\x1b\[[\d;]*m", "", product.output))
    return float(found[1]) if found else math.inf
