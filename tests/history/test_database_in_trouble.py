"""A slow, locked, failing or dead database costs no client anything and the history nothing."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, connection

from history import recorder as recorder_module
from history import store as store_module
from history import writer
from history.models import RequestPayload, RequestRecord, TokenTotal
from history.terms import KnownTerms
from history.writer import Frame
from tests.history.conftest import StartRecorder, eventually, make_entry, with_bodies

pytestmark = pytest.mark.django_db(transaction=True)


@contextlib.contextmanager
def locked_database() -> Iterator[None]:
    """Somebody else holds the write lock."""
    if connection.vendor != "sqlite":
        pytest.skip("SQLite's lock")
    other = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


class Database:
    """Stands before the real one; `is_down` makes it refuse."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_down = False
        self.loses_commits = 0
        self.refusals = 0
        self._real = writer.write
        monkeypatch.setattr(store_module, "write", self.write)

    def write(self, frame: Frame, known: KnownTerms | None = None) -> None:
        if self.is_down:
            self.refusals += 1
            raise OperationalError("the database is down")
        self._real(frame, known)
        if self.loses_commits:
            self.loses_commits -= 1
            raise OperationalError("the connection was lost while the commit was under way")


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Database:
    return Database(monkeypatch)


def spooled(spool: Path) -> int:
    return sum(path.stat().st_size for path in spool.glob("*.spool"))


def test_a_locked_database_is_waited_for_off_the_loop(start_recorder: StartRecorder, spool: Path) -> None:
    recorder = start_recorder()
    with locked_database():
        started = time.monotonic()
        for _ in range(500):
            recorder.put(with_bodies())
        assert time.monotonic() - started < 0.5
        eventually(lambda: spooled(spool) > 10_000, within=1.0)
        time.sleep(0.5)
        assert recorder.health().backlog == 500
    eventually(lambda: recorder.health().backlog == 0, within=10)
    assert RequestRecord.objects.count() == 500
    assert spooled(spool) == 0


def test_a_failing_database_is_tried_again_until_it_takes_everything(
    start_recorder: StartRecorder, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    database.is_down = True
    recorder = start_recorder()
    for _ in range(450):
        recorder.put(make_entry())
    eventually(lambda: database.refusals >= 3)
    health = recorder.health()
    assert (health.backlog, health.last_error) == (450, "OperationalError")
    assert health.failing_since is not None
    database.is_down = False
    eventually(lambda: recorder.health().backlog == 0, within=10)
    assert recorder.health().failing_since is None
    assert RequestRecord.objects.count() == 450
    assert TokenTotal.objects.get().requests == 450
    assert len([record for record in caplog.records if "takes no history" in record.message]) == 1


def test_a_commit_that_was_not_heard_of_is_not_repeated(start_recorder: StartRecorder, database: Database) -> None:
    database.loses_commits = 1
    recorder = start_recorder()
    for _ in range(5):
        recorder.put(make_entry())
    assert recorder.stop()
    assert RequestRecord.objects.count() == 5
    assert TokenTotal.objects.get().requests == 5


def test_what_the_database_never_took_is_written_by_the_next_process(
    start_recorder: StartRecorder, database: Database, spool: Path
) -> None:
    database.is_down = True
    recorder = start_recorder()
    for number in range(300):
        recorder.put(with_bodies(request_id=str(number)))
    assert not recorder.stop(0.5)
    assert not RequestRecord.objects.exists()
    left = list(spool.glob("*.spool"))
    assert left
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in left)
    assert stat.S_IMODE(spool.stat().st_mode) == 0o700
    assert b"capital of Japan" not in b"".join(path.read_bytes() for path in left)

    database.is_down = False
    following = start_recorder()
    eventually(lambda: RequestRecord.objects.count() == 300, within=10)
    assert following.stop()
    assert RequestPayload.objects.count() == 300
    assert TokenTotal.objects.get().requests == 300
    assert not list(spool.iterdir())


def test_a_running_processs_spool_is_left_alone(start_recorder: StartRecorder, database: Database, spool: Path) -> None:
    database.is_down = True
    first = start_recorder()
    first.put(make_entry())
    eventually(lambda: spooled(spool) > 0)
    start_recorder()
    time.sleep(0.3)
    database.is_down = False
    eventually(lambda: first.health().backlog == 0, within=10)
    assert RequestRecord.objects.count() == 1


def test_a_spool_that_was_cut_in_the_middle_is_read_as_far_as_it_goes(
    start_recorder: StartRecorder, database: Database, spool: Path
) -> None:
    database.is_down = True
    recorder = start_recorder()
    for _ in range(2):
        recorder.put(make_entry())
        before = spooled(spool)
        eventually(lambda before=before: spooled(spool) > before)  # type: ignore[misc]
    recorder.stop(0.3)
    (path,) = spool.glob("*.spool")
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size - 7)
    database.is_down = False
    following = start_recorder()
    eventually(RequestRecord.objects.exists)
    following.stop()
    assert RequestRecord.objects.count() == 1
    assert not list(spool.iterdir())


@pytest.mark.parametrize("bad", [{"prompt_tokens": -5}, {"completion_tokens": 10**30}, {"model": "a\0b\ud800"}])
def test_one_row_that_no_database_takes_spoils_no_other(start_recorder: StartRecorder, bad: dict[str, Any]) -> None:
    recorder = start_recorder()
    for number in range(5):
        recorder.put(make_entry(request_id=str(number), **(bad if number == 2 else {})))
    assert recorder.stop()
    rows = RequestRecord.objects.order_by("id").values_list("request_id", flat=True)
    assert set(rows) >= {"0", "1", "3", "4"}
    assert recorder.health().rows_dropped + len(rows) == 5


def test_bodies_go_before_rows_where_the_spool_is_half_full(
    start_recorder: StartRecorder, database: Database, spool: Path
) -> None:
    database.is_down = True
    recorder = start_recorder(spool_bytes=1_000_000)
    for _ in range(150):
        recorder.put(make_entry(request_body=os.urandom(4000)))
    eventually(lambda: spooled(spool) > 500_000)
    for _ in range(50):
        recorder.put(make_entry(request_body=os.urandom(4000)))
    eventually(lambda: recorder.health().payloads_dropped >= 50)
    database.is_down = False
    assert recorder.stop(20)
    health = recorder.health()
    assert health.rows_dropped == 0
    assert RequestRecord.objects.count() == 200
    assert RequestPayload.objects.count() + health.payloads_dropped == 200


def test_a_spool_that_cannot_be_written_costs_nothing_while_the_database_is_well(
    start_recorder: StartRecorder, spool: Path
) -> None:
    spool.write_text("a file where the directory should be")
    recorder = start_recorder()
    for _ in range(10):
        recorder.put(with_bodies())
    assert recorder.stop()
    assert RequestRecord.objects.count() == 10


def test_rows_beyond_every_bound_are_dropped_and_counted(
    start_recorder: StartRecorder, database: Database, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "MEMORY_ROWS", 400)
    monkeypatch.setattr(recorder_module, "FLUSH_SECONDS", 0.1)
    spool.write_text("a file where the directory should be")
    database.is_down = True
    recorder = start_recorder()
    for _ in range(5):
        for _ in range(200):
            recorder.put(make_entry())
        time.sleep(0.3)
    assert recorder.health().rows_dropped == 600
    database.is_down = False
    assert recorder.stop(20)
    assert RequestRecord.objects.count() == 400


def test_a_loop_faster_than_everything_drops_bodies_then_rows(
    start_recorder: StartRecorder, spool: Path, monkeypatch: pytest.MonkeyPatch, transactional_db: None
) -> None:
    monkeypatch.setattr(recorder_module, "MAX_WAITING_ROWS", 20)
    monkeypatch.setattr(recorder_module, "MAX_WAITING_BYTES", 1000)
    recorder = recorder_module.Recorder(directory=spool)
    for _ in range(25):
        recorder.put(make_entry(request_body=b"x" * 100))
    health = recorder.health()
    assert (health.rows_dropped, health.payloads_dropped, health.backlog) == (5, 10, 20)
    recorder.start()
    assert recorder.stop()
    assert (RequestRecord.objects.count(), RequestPayload.objects.count()) == (20, 10)
