"""A Redis server of the test's own, which may be stopped, killed and made to hang."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from types import TracebackType
from typing import Final

import redis

from tests.support.product import free_port, wait_until

HIGHEST_PORT: Final = 55_535  # a node of a cluster also listens 10 000 above its port


class PrivateRedis:
    """Empty at each start: nothing is kept on disk. Use as a context manager. `more`: further options of its own."""

    def __init__(self, host: str = "127.0.0.1", *, more: tuple[str, ...] = ()) -> None:
        self.host = host
        self._more = more
        self.port = free_port()
        while self.port > HIGHEST_PORT:
            self.port = free_port()
        self._directory = tempfile.TemporaryDirectory(prefix="llmlb-redis-")
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def is_there() -> bool:
        return shutil.which("redis-server") is not None

    @property
    def url(self) -> str:
        return f"redis://{self.host}:{self.port}/3"

    def __enter__(self) -> PrivateRedis:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.kill()
        self._directory.cleanup()

    def start(self) -> None:
        where = ["--port", str(self.port), "--bind", self.host, "--protected-mode", "no", "--dir", self._directory.name]
        command = ["redis-server", *where, "--save", "", "--appendonly", "no", *self._more]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(self._answers, seconds=10, what="Redis answers")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def hang(self) -> None:
        """It keeps its connections and answers nothing more."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        client = redis.Redis(host=self.host, port=self.port, socket_timeout=1)
        try:
            return bool(client.ping())
        except redis.AuthenticationError:
            return True
        except redis.RedisError:
            return False
        finally:
            client.close()
