"""One server per port, and per data directory while state is in the process: locks that die with their holder.

A lock is a small JSON file `{pid, started_at, port, host}` that the running server also holds with flock(2). The
kernel lets go of it when the process ends, however it ends, so a file that nobody holds is stale by definition: its
pid may be gone or belong to another program by now. Ports are locked per user in the system's temporary directory,
so that two servers with different data directories see each other.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

WRITING_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Instance:
    """A running server: what a person needs in order to find or stop it."""

    pid: int
    started_at: datetime
    host: str
    port: int

    @classmethod
    def this_process(cls, *, host: str, port: int) -> Instance:
        return cls(pid=os.getpid(), started_at=datetime.now(UTC), host=host, port=port)

    @classmethod
    def from_json(cls, text: str) -> Instance:
        """Raises: ValueError, KeyError."""
        data = json.loads(text)
        return cls(
            pid=int(data["pid"]),
            started_at=datetime.fromisoformat(data["started_at"]),
            host=str(data["host"]),
            port=int(data["port"]),
        )

    def to_json(self) -> str:
        started_at = self.started_at.isoformat(timespec="seconds")
        return json.dumps({"pid": self.pid, "started_at": started_at, "port": self.port, "host": self.host})

    def since(self) -> str:
        return self.started_at.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


class AlreadyRunning(Exception):
    """Another server holds the lock. `instance` is None if it has not said yet who it is."""

    def __init__(self, instance: Instance | None) -> None:
        super().__init__("already running")
        self.instance = instance


def port_lock_path(port: int) -> Path:
    return _runtime_dir() / f"serve-{port}.lock"


def data_lock_path(data_dir: Path) -> Path:
    return data_dir / "serve.lock"


def running(path: Path) -> Instance | None:
    """Who holds the lock; None if nobody does."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    with os.fdopen(descriptor) as file:
        if _try_lock(file.fileno(), fcntl.LOCK_SH):
            return None
        return _read(file.fileno())


class InstanceLock:
    """A lock file, held from `acquire` to `release` or to the end of the process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self, instance: Instance) -> None:
        """Raises: AlreadyRunning; OSError: the file cannot be written."""
        while self._descriptor is None:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            if not _try_lock(descriptor, fcntl.LOCK_EX):
                holder = _read(descriptor)
                os.close(descriptor)
                raise AlreadyRunning(holder)
            if _is_at(descriptor, self.path):
                self._descriptor = descriptor
            else:  # its last holder removed it between our open and our lock
                os.close(descriptor)
        os.fchmod(self._descriptor, 0o600)
        os.truncate(self._descriptor, 0)
        os.pwrite(self._descriptor, instance.to_json().encode(), 0)

    def release(self) -> None:
        if self._descriptor is not None:
            with suppress(OSError):
                self.path.unlink()
            os.close(self._descriptor)
            self._descriptor = None


def _runtime_dir() -> Path:
    """A directory of this user's own under the temporary directory.

    Raises:
        PermissionError: someone else made it, so that what is in it cannot be trusted.
    """
    path = Path(tempfile.gettempdir()) / f"llmlb-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    status = path.lstat()
    if status.st_uid != os.getuid() or not path.is_dir() or path.is_symlink():
        raise PermissionError(f"{path} is not a directory of this user's own; remove it or set TMPDIR")
    return path


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(descriptor: int) -> Instance | None:
    """What the holder wrote; it may be about to, so try for a moment."""
    deadline = time.monotonic() + WRITING_SECONDS
    while True:
        try:
            return Instance.from_json(os.pread(descriptor, 4096, 0).decode())
        except (ValueError, KeyError):
            if time.monotonic() > deadline:
                return None
            time.sleep(0.02)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        on_disk = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), on_disk)
