"""What the gateway processes of one `serve` tell each other of their figures, so that `/metrics` of any is of all.

Each writes a small file twice a second, where something changed; `/metrics` adds up the others' files. What a process
counted stays when it ends: the `serve` that started it keeps the sum of those that are no more.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from llmlb_site.lib import health
from routing.metrics import Figures

TELL_SECONDS: Final = 0.5
_ENDED: Final = "ended"
_MISSING: Final = "missing"
_SUFFIX: Final = ".figures"
_PART: Final = "processes"  # its name in /readyz
_pack: Final = msgspec.msgpack.Encoder().encode
_unpack: Final = msgspec.msgpack.Decoder(Figures).decode


class Siblings:
    """One process's view of the directory that it shares with the others. Belongs to the event loop."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._own = directory / f"{name}{_SUFFIX}"
        self._told = b""
        self._telling: asyncio.Task[None] | None = None

    def start(self, figures: Callable[[], Figures]) -> None:
        self._telling = asyncio.create_task(self._keep_telling(figures))

    async def stop(self, figures: Callable[[], Figures]) -> None:
        """The last word of this process."""
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.gather(self._telling, return_exceptions=True)
            self._tell(figures())

    def others(self) -> list[Figures]:
        with _locked(self._directory, fcntl.LOCK_SH):
            paths = [path for path in self._directory.glob(f"*{_SUFFIX}") if path != self._own]
            return [_unpack(path.read_bytes()) for path in paths]

    async def _keep_telling(self, figures: Callable[[], Figures]) -> None:
        while True:
            self._tell(figures())
            missing = (self._directory / _MISSING).exists()
            health.report(_PART, ok=not missing, detail="one of them died and starts again" if missing else "")
            await asyncio.sleep(TELL_SECONDS)

    def _tell(self, figures: Figures) -> None:
        packed = _pack(figures)
        if packed != self._told:
            self._told = packed
            _write(self._own, packed)


def say_missing(directory: Path, *, missing: bool) -> None:
    """Have the processes say in `/readyz` that one of them is not there."""
    if missing:
        (directory / _MISSING).touch()
    else:
        (directory / _MISSING).unlink(missing_ok=True)


def bury(directory: Path, name: str) -> None:
    """This process is no more: what it counted stays, what it had at the moment does not."""
    own, ended = directory / f"{name}{_SUFFIX}", directory / f"{_ENDED}{_SUFFIX}"
    with _locked(directory, fcntl.LOCK_EX):
        if not own.exists():
            return
        last = _unpack(own.read_bytes())
        total = _unpack(ended.read_bytes()) if ended.exists() else Figures()
        total.add(Figures(tally=last.tally, dropped=last.dropped))
        _write(ended, _pack(total))
        own.unlink()


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all, for whoever reads at this moment."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.replace(path)


@contextmanager
def _locked(directory: Path, kind: int) -> Iterator[None]:
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, kind)
        yield
    finally:
        os.close(descriptor)
