"""What is not in the database yet, in append-only files: a killed process or a dead database loses nothing.

Every batch is written here first and removed when the database has it. A caught-up journal is an empty file, so in
normal running nothing of it reaches the disk. Files of a process that died are adopted by the next one that looks:
the lock on a file says whether its owner lives.
"""

from __future__ import annotations

import fcntl
import os
import struct
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Final

SEGMENT_BYTES: Final = 16 * 1024 * 1024
_HEADER: Final = struct.Struct("<II")  # length, CRC-32
_SUFFIX: Final = ".spool"


class JournalFull(OSError):
    """The journal has reached the size that it may have on disk."""


class _Segment:
    """One file, locked by the process that owns it, with the number of frames that are still needed."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self.size = 0
        self.needed = 0

    @classmethod
    def create(cls, directory: Path) -> _Segment:
        path = directory / f"{os.getpid()}-{uuid.uuid4().hex}{_SUFFIX}"
        fresh = path.with_suffix(".new")  # not to be adopted before it is locked
        descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        fresh.rename(path)
        return cls(path, descriptor)

    @classmethod
    def adopt(cls, path: Path) -> _Segment | None:
        """The segment of a dead process; None while its owner lives."""
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        if os.fstat(descriptor).st_nlink == 0:  # another process adopted and finished it meanwhile
            os.close(descriptor)
            return None
        return cls(path, descriptor)

    def scan(self) -> list[Place]:
        """Where its frames are, up to the first torn one."""
        places: list[Place] = []
        length_of_file = os.fstat(self.descriptor).st_size
        while self.size + _HEADER.size <= length_of_file:
            length, _ = _HEADER.unpack(os.pread(self.descriptor, _HEADER.size, self.size))
            place = Place(self, self.size, length)
            if self.size + _HEADER.size + length > length_of_file or place.read() is None:
                break
            places.append(place)
            self.size += _HEADER.size + length
        self.needed = len(places)
        return places

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        os.close(self.descriptor)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a frame is."""

    segment: _Segment
    offset: int
    length: int

    def read(self) -> bytes | None:
        """The frame; None if the file does not hold it whole."""
        raw = os.pread(self.segment.descriptor, _HEADER.size + self.length, self.offset)
        if len(raw) < _HEADER.size + self.length:
            return None
        _, checksum = _HEADER.unpack_from(raw)
        frame = raw[_HEADER.size :]
        return frame if zlib.crc32(frame) == checksum else None


class Journal:
    """The files of one recorder. Safe for its two threads: one appends, one reads and removes."""

    def __init__(self, directory: Path, *, limit: int) -> None:
        self._directory = directory
        self._limit = limit
        self._lock = Lock()
        self._segments: list[_Segment] = []  # adopted ones among them
        self._current: _Segment | None = None  # the one that is appended to

    @property
    def size(self) -> int:
        """Bytes on disk that the database does not have yet."""
        return sum(segment.size for segment in tuple(self._segments))

    def append(self, frame: bytes) -> Place:
        """Keep `frame` until `done`.

        Raises:
            JournalFull: the limit is reached.
            OSError: the directory cannot be written.
        """
        header = _HEADER.pack(len(frame), zlib.crc32(frame))
        with self._lock:
            if self.size + len(frame) > self._limit:
                raise JournalFull(f"the spool has reached {self._limit} bytes")
            segment = self._writable()
            place = Place(segment, segment.size, len(frame))
            _write_all(segment, header + frame)
            segment.needed += 1
            return place

    def done(self, place: Place) -> None:
        """The database has the frame at `place`."""
        segment = place.segment
        with self._lock:
            segment.needed -= 1
            if segment.needed == 0:
                self._empty(segment)

    def adopt(self) -> Iterator[Place]:
        """The frames of processes that died, oldest file first."""
        for path in sorted(self._directory.glob(f"*{_SUFFIX}"), key=_modified):
            if (segment := _Segment.adopt(path)) is None:
                continue
            places = segment.scan()
            if not places:
                segment.remove()
                continue
            with self._lock:
                self._segments.append(segment)
            yield from places

    def close(self) -> None:
        """Let go of the files; one that is still needed stays for the next process."""
        with self._lock:
            for segment in self._segments:
                if segment.needed == 0:
                    segment.remove()
                else:
                    os.close(segment.descriptor)
            self._segments.clear()
            self._current = None

    def _writable(self) -> _Segment:
        if self._current is None or self._current.size >= SEGMENT_BYTES:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._current = _Segment.create(self._directory)
            self._segments.append(self._current)
        return self._current

    def _empty(self, segment: _Segment) -> None:
        if segment is self._current and segment.size < SEGMENT_BYTES:
            os.ftruncate(segment.descriptor, 0)
            segment.size = 0
            return
        self._segments.remove(segment)
        segment.remove()
        if segment is self._current:
            self._current = None


def _write_all(segment: _Segment, data: bytes) -> None:
    """Append whole or not at all: a full disk must not leave half a frame for the next one to follow."""
    written = 0
    try:
        while written < len(data):
            written += os.write(segment.descriptor, data[written:])
    except OSError:
        os.ftruncate(segment.descriptor, segment.size)
        raise
    segment.size += written


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
