"""Where an upload waits until a node has taken it: small ones in memory, larger ones in a file without a name.

What the disk does not take stays in memory: a full disk stops no request as long as there is room there.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, ClassVar, Final

MEMORY_BYTES: Final = 1024 * 1024
# Of all uploads of a process together, of those that the disk did not take.
REFUSED_BYTES: Final = 64 * 1024 * 1024
# Written in a thread, in steps of this size: a disk that stalls must not stall every other request.
STEP_BYTES: Final = 256 * 1024
PIECE_BYTES: Final = 64 * 1024


class Spool:
    """The bytes of one upload, in order. Beyond `MEMORY_BYTES` they lie in an anonymous file, gone when closed.

    Once the disk has refused some of them, these and all that follow are kept in memory, behind what is in the file.
    """

    refused: ClassVar[int] = 0  # bytes of all open uploads of the process that are in memory because of the disk

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._pending = bytearray()
        self._file: IO[bytes] | None = None
        self._filed = 0
        self._refusal: OSError | None = None
        self._refused = 0

    @property
    def length(self) -> int:
        return self._filed + len(self._pending)

    async def write(self, data: bytes) -> None:
        """Raises: OSError, where the disk does not take it and there is no room for it in memory."""
        self._pending += data
        if self._refusal is not None:
            self._keep(len(data), self._refusal)
        elif len(self._pending) >= (MEMORY_BYTES if self._file is None else STEP_BYTES):
            await self._put_down()

    async def finish(self) -> None:
        """All of it has been written. Raises: OSError."""
        if self._file is not None and self._refusal is None:
            await self._put_down()

    def pieces(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """See `Storage.pieces`. What was written just now is in the system's cache, so that reading does not wait."""
        end = self.length if stop is None else stop
        while start < end:
            piece = self._read(start, min(PIECE_BYTES, end - start))
            start += len(piece)
            yield piece

    def close(self) -> None:
        Spool.refused -= self._refused
        self._refused = 0
        self._pending = bytearray()
        if self._file is not None:
            self._file.close()

    def _read(self, start: int, count: int) -> bytes:
        if self._file is None or start >= self._filed:
            at = start - self._filed
            return bytes(self._pending[at : at + count])
        self._file.seek(start)
        piece = self._file.read(min(count, self._filed - start))
        if not piece:
            raise OSError("an upload is shorter than it was")
        return piece

    async def _put_down(self) -> None:
        try:
            await asyncio.to_thread(self._flush)
        except OSError as error:
            self._refusal = error
            self._keep(len(self._pending), error)

    def _keep(self, count: int, refusal: OSError) -> None:
        """Count what stays in memory. Raises: `refusal`, where that is too much."""
        if Spool.refused + count > REFUSED_BYTES:
            raise refusal
        Spool.refused += count
        self._refused += count

    def _flush(self) -> None:
        """Put what is pending into the file, as far as the disk takes it. Raises: OSError."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(buffering=0, dir=self._directory)  # noqa: SIM115  # closed by close()
        view = memoryview(self._pending)
        done = 0
        try:
            while done < len(view):
                done += self._file.write(view[done:])
        finally:
            view.release()
            self._filed += done
            self._pending = self._pending[done:]
