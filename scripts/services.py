"""PostgreSQL and Redis for the tests of the scaled profile: given, started here, found on loopback, or installed.

What is started here is private: its own directory and port, gone when the tests are over. Standard library only.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from scripts import debian

START_SECONDS: Final = 30.0
REDIS_URL: Final = "LLMLB_TEST_REDIS_URL"
DATABASE_URL: Final = "LLMLB_TEST_DATABASE_URL"


class Unavailable(Exception):
    """The service cannot be had on this machine; the message says why in plain words."""


@contextmanager
def redis() -> Iterator[str]:
    """A redis:// URL. A private server is preferred to one on loopback, which may hold somebody's data."""
    if given := os.environ.get(REDIS_URL):
        yield given
        return
    binary = shutil.which("redis-server")
    if binary is None and _answers(6379):
        yield "redis://127.0.0.1:6379"
        return
    if binary is None:
        install("redis-server")
        binary = shutil.which("redis-server")
    if binary is None:
        raise Unavailable(f"no Redis: set {REDIS_URL}, or install redis-server")
    with _private_redis(binary) as url:
        yield url


@contextmanager
def postgresql() -> Iterator[str]:
    """A postgres:// URL of a server on which the tests may create databases."""
    if given := os.environ.get(DATABASE_URL):
        yield given
        return
    if url := _postgresql_on_loopback():
        yield url
        return
    binaries = _postgresql_binaries()
    if binaries is None:
        install("postgresql")
        binaries = _postgresql_binaries()
    if binaries is None:
        raise Unavailable(f"no PostgreSQL: set {DATABASE_URL}, or install postgresql")
    with _private_postgresql(binaries) as url:
        yield url


def install(*packages: str) -> bool:
    """Install system packages if this is root on a machine with apt. Returns whether that worked."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return False
    try:
        debian.install(*packages)
    except debian.NotInstalled:
        return False
    return True


@contextmanager
def _private_redis(binary: str) -> Iterator[str]:
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="llmlb-redis-") as directory:
        command = [
            binary,
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--dir",
            directory,
            "--save",
            "",
            "--appendonly",
            "no",
        ]
        with _child(command, port, "redis-server"):
            yield f"redis://127.0.0.1:{port}"


@contextmanager
def _private_postgresql(binaries: Path) -> Iterator[str]:
    port = _free_port()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llmlb-postgresql-")))
        user = _unprivileged_user()  # PostgreSQL refuses to run as root
        if user is not None:
            shutil.chown(directory, user)
        data = directory / "data"
        create = [str(binaries / "initdb"), "-D", str(data), "-U", "llmlb", "--auth=trust", "--no-sync", "-E", "UTF8"]
        done = subprocess.run(_as(user, create), cwd=directory, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Unavailable(f"no PostgreSQL: initdb failed: {done.stderr.strip()[-200:]}")
        serve = [str(binaries / "postgres"), "-D", str(data), "-p", str(port), "-k", str(directory)]
        serve += ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "max_connections=200"]
        stack.enter_context(_child(_as(user, serve), port, "postgres"))
        yield f"postgres://llmlb@127.0.0.1:{port}/postgres"


@contextmanager
def _child(command: list[str], port: int, name: str) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise Unavailable(f"{name} did not start")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(START_SECONDS)


def _postgresql_on_loopback() -> str | None:
    """A server that lets this user in without a password and create databases; None otherwise."""
    if not _answers(5432):
        return None
    import psycopg

    user = pwd.getpwuid(os.geteuid()).pw_name
    for candidate in (user, "postgres"):
        url = f"postgres://{candidate}@127.0.0.1:5432/postgres"
        try:
            with psycopg.connect(url, connect_timeout=3) as connection:
                row = connection.execute("SELECT rolcreatedb FROM pg_roles WHERE rolname = current_user").fetchone()
        except psycopg.OperationalError:
            continue
        if row is not None and row[0]:
            return url
    return None


def _postgresql_binaries() -> Path | None:
    found = [Path(binary).parent for binary in (shutil.which("initdb"),) if binary]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((path for path in found if (path / "initdb").exists() and (path / "postgres").exists()), None)


def _unprivileged_user() -> str | None:
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise Unavailable("no PostgreSQL: it refuses to run as root, and there is no user postgres or nobody")


def _as(user: str | None, command: list[str]) -> list[str]:
    return command if user is None else ["runuser", "-u", user, "--", *command]


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
