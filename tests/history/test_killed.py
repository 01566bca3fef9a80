"""A gateway that is killed with -9 loses no request that had ended more than a second before."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GATEWAY = """
import sys, time
import django; django.setup()
from history.recorder import Recorder
from tests.history.conftest import with_bodies
recorder = Recorder()
recorder.start()
for number in range(int(sys.argv[1])):
    recorder.put(with_bodies(request_id=str(number)))
print("put", flush=True)
time.sleep(60)
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A fresh installation's environment, its database made."""
    data = tmp_path_factory.mktemp("data")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LLMLB_")}
    environment |= {"LLMLB_DATA_DIR": str(data), "LLMLB_SECRET_KEY": "k" * 50, "PYTHONPATH": str(ROOT)}
    environment["DJANGO_SETTINGS_MODULE"] = "llmlb_site.settings"
    subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=ROOT, env=environment, check=True, timeout=90)
    return environment


@pytest.fixture
def database(environment: dict[str, str]) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(Path(environment["LLMLB_DATA_DIR"]) / "llmlb.sqlite3", isolation_level=None)
    for table in ("requestpayload", "requestattempt", "requestrecord", "tokentotal"):
        connection.execute(f"DELETE FROM history_{table}")
    yield connection
    connection.close()


def gateway(environment: dict[str, str], requests: int) -> subprocess.Popen[bytes]:
    """A process that has recorded so many requests just now."""
    command = [sys.executable, "-c", GATEWAY, str(requests)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"put\n"
    return process


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def run_following(environment: dict[str, str], database: sqlite3.Connection, *, until: int) -> None:
    """Start the gateway again, let it write what was spooled, and a little longer: it must not write it twice."""
    following = gateway(environment, 0)
    deadline = time.monotonic() + 15
    while count(database) < until and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.5)
    kill(following)


def count(database: sqlite3.Connection) -> int:
    return int(database.execute("SELECT count(*) FROM history_requestrecord").fetchone()[0])


def test_nothing_older_than_a_second_is_lost(environment: dict[str, str], database: sqlite3.Connection) -> None:
    process = gateway(environment, 1000)
    time.sleep(1)
    kill(process)
    run_following(environment, database, until=1000)
    assert count(database) == 1000
    assert database.execute("SELECT sum(requests) FROM history_tokentotal").fetchone() == (1000,)


def test_nothing_is_lost_or_doubled_while_the_database_is_locked(
    environment: dict[str, str], database: sqlite3.Connection
) -> None:
    database.execute("BEGIN IMMEDIATE")
    process = gateway(environment, 300)
    time.sleep(1)
    kill(process)
    database.execute("ROLLBACK")
    assert count(database) == 0
    run_following(environment, database, until=300)
    assert count(database) == 300
    assert database.execute("SELECT sum(requests) FROM history_tokentotal").fetchone() == (300,)
    assert database.execute("SELECT count(*) FROM history_requestpayload").fetchone() == (300,)
