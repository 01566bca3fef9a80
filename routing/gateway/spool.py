"""Where an upload waits until a node has taken it: small ones in memory, larger ones in a file without a name."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

MEMORY_BYTES: Final = 1024 * 1024
# Written in a thread, in steps of this size: a disk that stalls must not stall every other request.
STEP_BYTES: Final = 256 * 1024
PIECE_BYTES: Final = 64 * 1024


class Spool:
    """The bytes of one upload, in order. Beyond `MEMORY_BYTES` they lie in an anonymous file, gone when closed."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._pending = bytearray()
        self._file: IO[bytes] | None = None
        self._filed = 0

    @property
    def length(self) -> int:
        return self._filed + len(self._pending)

    async def write(self, data: bytes) -> None:
        """Raises: OSError, where the disk does not take it."""
        self._pending += data
        if len(self._pending) >= (MEMORY_BYTES if self._file is None else STEP_BYTES):
            await asyncio.to_thread(self._flush)

    async def finish(self) -> None:
        """All of it has been written. Raises: OSError."""
        if self._file is not None:
            await asyncio.to_thread(self._flush)

    def pieces(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """See `Storage.pieces`. What was written just now is in the system's cache, so that reading does not wait."""
        end = self.length if stop is None else stop
        while start < end:
            piece = self._read(start, min(PIECE_BYTES, end - start))
            start += len(piece)
            yield piece

    def close(self) -> None:
        self._pending = bytearray()
        if self._file is not None:
            self._file.close()

    def _read(self, start: int, count: int) -> bytes:
        if self._file is None:
            return bytes(self._pending[start : start + count])
        self._file.seek(start)
        piece = self._file.read(count)
        if not piece:
            raise OSError("an upload is shorter than it was")
        return piece

    def _flush(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(buffering=0, dir=self._directory)  # noqa: SIM115  # closed by close()
        view = memoryview(self._pending)
        try:
            done = 0
            while done < len(view):
                done += self._file.write(view[done:])
        finally:
            view.release()
        self._filed += len(self._pending)
        self._pending = bytearray()
