"""A PostgreSQL and a Redis of the drill's own, which can be killed and started again with what they held."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Final, LiteralString, Self

import psycopg
import pytest
import redis

from scripts.services import _as, _postgresql_binaries, _unprivileged_user
from tests.support.product import free_port, wait_until

START_SECONDS: Final = 30.0


class Server:
    """A process on a port that stays the same. Use as a context manager.

    Its directory is not below pytest's, which are for one user only: PostgreSQL does not run as root.
    """

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="llmlb-drill-"))
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.end()

    def end(self) -> None:
        """It is gone with all that it held."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self) -> None:
        """Start, and return when it answers."""
        wait_until(self._is_up, seconds=START_SECONDS, what=f"{type(self).__name__} answers")

    def _is_up(self) -> bool:
        """Started again as long as it ends by itself: what was left of one that was killed may still be in the way."""
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                self.command(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
            )
        return self.answers()

    def kill(self) -> None:
        """SIGKILL to all of it: what it had not written is lost, and its connections are reset."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def command(self) -> list[str]:
        raise NotImplementedError

    def answers(self) -> bool:
        raise NotImplementedError


class PostgreSQL(Server):
    def __init__(self) -> None:
        binaries = _postgresql_binaries()
        if binaries is None:
            pytest.skip("no PostgreSQL on this machine")
        super().__init__()
        self._binaries = binaries
        self._user = _unprivileged_user()
        if self._user is not None:
            shutil.chown(self.directory, self._user)
        data = str(self.directory / "data")
        create = [str(binaries / "initdb"), "-D", data, "-U", "llmlb", "--auth=trust", "--no-sync", "-E", "UTF8"]
        subprocess.run(_as(self._user, create), cwd=self.directory, capture_output=True, check=True)

    @property
    def url(self) -> str:
        return f"postgres://llmlb@127.0.0.1:{self.port}/postgres"

    def command(self) -> list[str]:
        data = str(self.directory / "data")
        serve = [str(self._binaries / "postgres"), "-D", data, "-p", str(self.port), "-k", str(self.directory)]
        return _as(self._user, [*serve, "-c", "listen_addresses=127.0.0.1", "-c", "max_connections=100"])

    def answers(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=1).close()
        except psycopg.OperationalError:
            return False
        return True

    def execute(self, statement: LiteralString) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement)

    def count(self, query: str) -> int:
        with psycopg.connect(self.url) as connection:
            row = connection.execute(query).fetchone()
        return int(row[0] or 0) if row else 0


class Redis(Server):
    def __init__(self) -> None:
        if shutil.which("redis-server") is None:
            pytest.skip("no Redis on this machine")
        super().__init__()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory)]
        return [*command, "--save", "", "--appendonly", "no"]

    def answers(self) -> bool:
        client = redis.Redis.from_url(self.url)
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False
        finally:
            client.close()
