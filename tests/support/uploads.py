"""Uploads that are made while they are sent, and the memory that a process takes for them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

BOUNDARY: Final = "a-boundary-of-its-own"
CONTENT_TYPE: Final = f"multipart/form-data; boundary={BOUNDARY}"
PIECE: Final = b"RIFF\0\0\0\0WAVEfmt " + bytes(range(256)) * 255
HEAD: Final = (
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="talk.wav"\r\n\r\n'
).encode()
TAIL: Final = f"\r\n--{BOUNDARY}--\r\n".encode()
KIB: Final = 1024


class Upload:
    """A form with a file of `size` bytes that nobody ever holds whole."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __iter__(self) -> Iterator[bytes]:
        yield HEAD
        left = self.size
        while left:
            piece = PIECE[:left]
            left -= len(piece)
            yield piece
        yield TAIL

    @property
    def length(self) -> int:
        return len(HEAD) + self.size + len(TAIL)

    @property
    def headers(self) -> dict[str, str]:
        return {"Content-Type": CONTENT_TYPE, "Content-Length": str(self.length)}

    @property
    def digest(self) -> str:
        whole = hashlib.sha256()
        for piece in self:
            whole.update(piece)
        return whole.hexdigest()


def forget_peak(pid: int) -> None:
    """From now on `peak_bytes` is about what comes (Linux, of one's own processes)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_bytes(pid: int) -> int:
    """The most memory that a process has had resident."""
    return _status(pid, "VmHWM")


def resident_bytes(pid: int) -> int:
    return _status(pid, "VmRSS")


def _status(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) * KIB
