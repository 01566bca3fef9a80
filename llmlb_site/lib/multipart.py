"""Reading `multipart/form-data` as it comes: where each part lies, and how it begins. Nothing is held beyond that.

Why not a library: those at hand decode the parts and forget where they stood, but a form passes on byte for byte, and
only the model behind an alias is written into it, in place. And this reader is strict where they are lenient: a form
that two readers could understand in two ways is refused, because the node must see the model that the key was checked
for. https://www.rfc-editor.org/rfc/rfc7578, https://www.rfc-editor.org/rfc/rfc2046#section-5.1
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

MAX_PARTS: Final = 64
MAX_PART_HEAD_BYTES: Final = 8 * 1024
# What is kept of each part: all of a field that steers a request, and enough of a file to tell what it is.
KEPT_BYTES: Final = 4 * 1024

_BOUNDARY: Final = re.compile(rb"""[0-9A-Za-z'()+_,./:=?-](?:[0-9A-Za-z'()+_,./:=? -]{0,68}[0-9A-Za-z'()+_,./:=?-])?""")
_PARAMETER: Final = re.compile(
    rb""";[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(?:"((?:[^"\\\r\n]|\\.)*)"|([^\s;"]+))[ \t]*""", re.DOTALL
)
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]+(?:\[[A-Za-z0-9_]*\])*")
_PLAIN_ENCODINGS: Final = frozenset({b"7bit", b"8bit", b"binary"})


class NotAForm(ValueError):
    """The body is not a form that can be understood in one way only. The message says why, for the client."""


@dataclass(slots=True)
class Part:
    """One part. `start` and `stop` are where its value lies in the body; `head` is how the value begins."""

    name: str
    filename: str | None
    content_type: str
    start: int
    stop: int = -1
    head: bytes = b""

    @property
    def is_file(self) -> bool:
        return self.filename is not None

    @property
    def size(self) -> int:
        """Bytes."""
        return self.stop - self.start

    @property
    def is_whole(self) -> bool:
        """`head` is all of it."""
        return len(self.head) == self.size


def boundary_of(content_type: bytes) -> bytes:
    """The boundary that a `Content-Type: multipart/form-data` announces. Raises: NotAForm."""
    _, semicolon, rest = content_type.partition(b";")
    given = _parameters(semicolon + rest)
    boundary = given.get(b"boundary", b"")
    if not _BOUNDARY.fullmatch(boundary):
        raise NotAForm("Content-Type has no valid boundary.")
    return boundary


Step = Callable[["MultipartReader"], bool]


class MultipartReader:
    """Fed with the body in pieces of any size; knows its parts when it is finished."""

    __slots__ = ("_at", "_needle", "_step", "_waiting", "parts")

    def __init__(self, boundary: bytes) -> None:
        self.parts: list[Part] = []
        self._needle = b"--" + boundary
        self._waiting = b""
        self._at = 0  # where `_waiting` begins in the body
        self._step: Step = MultipartReader._begin  # not bound: it would refer to what refers to it

    def feed(self, data: bytes) -> None:
        """Raises: NotAForm, as soon as it is certain."""
        self._waiting += data
        while self._step(self):
            pass

    def finish(self) -> list[Part]:
        """All parts, once the body has ended. Raises: NotAForm, where it ended too early."""
        if self._step is not MultipartReader._end:
            raise NotAForm("The form ends before its last boundary.")
        return self.parts

    # Each step does what it can with what is there, and tells whether the next one can go on.

    def _begin(self) -> bool:
        self._drop(len(self._waiting) - len(self._waiting.lstrip(b"\r\n")))
        start = self._waiting[: len(self._needle)]
        if not self._needle.startswith(start):
            raise NotAForm("The body does not begin with the boundary that Content-Type announces.")
        if len(start) < len(self._needle):
            return False
        return self._go_on(len(self._needle), MultipartReader._boundary_end)

    def _boundary_end(self) -> bool:
        if len(self._waiting) < 2:
            return False
        mark = self._waiting[:2]
        if mark not in (b"--", b"\r\n"):
            raise NotAForm("A boundary is followed by something else than a line end.")
        return self._go_on(2, MultipartReader._end if mark == b"--" else MultipartReader._head)

    def _head(self) -> bool:
        end = self._waiting.find(b"\r\n\r\n", 0, MAX_PART_HEAD_BYTES)
        if end < 0:
            if len(self._waiting) >= MAX_PART_HEAD_BYTES:
                raise NotAForm("The head of a part is too long.")
            return False
        if len(self.parts) == MAX_PARTS:
            raise NotAForm(f"The form has more than {MAX_PARTS} parts.")
        self.parts.append(_read_head(self._waiting[:end], start=self._at + end + 4))
        return self._go_on(end + 4, MultipartReader._value)

    def _value(self) -> bool:
        found = self._waiting.find(self._needle)
        if found < 0:  # the last bytes may be the beginning of a line end and a boundary
            self._keep(max(0, len(self._waiting) - len(self._needle) - 1))
            return False
        if not self._waiting.endswith(b"\r\n", 0, found):
            raise NotAForm("The boundary occurs within a part.")
        self._keep(found - 2)
        self.parts[-1].stop = self._at
        return self._go_on(2 + len(self._needle), MultipartReader._boundary_end)

    def _end(self) -> bool:
        if self._waiting.strip(b"\r\n"):
            raise NotAForm("Something follows the last boundary.")
        self._drop(len(self._waiting))
        return False

    def _keep(self, count: int) -> None:
        """So many of the bytes that wait belong to the value of the current part."""
        part = self.parts[-1]
        part.head += self._waiting[: min(count, KEPT_BYTES - len(part.head))]
        self._drop(count)

    def _drop(self, count: int) -> None:
        self._waiting = self._waiting[count:]
        self._at += count

    def _go_on(self, count: int, step: Step) -> bool:
        self._drop(count)
        self._step = step
        return True


def _read_head(head: bytes, *, start: int) -> Part:
    """Raises: NotAForm."""
    headers: dict[bytes, bytes] = {}
    for line in head.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if not colon or not name or name != name.strip() or b"\r" in line or b"\n" in line or b"\0" in line:
            raise NotAForm("The head of a part is malformed.")
        if name.lower() in headers:
            raise NotAForm("The head of a part says something twice.")
        headers[name.lower()] = value.strip()
    if headers.get(b"content-transfer-encoding", b"binary").lower() not in _PLAIN_ENCODINGS:
        raise NotAForm("A part has a transfer encoding; parts are sent as they are.")
    name_text, filename = _read_disposition(headers.get(b"content-disposition", b""))
    return Part(name_text, filename, headers.get(b"content-type", b"").decode("latin-1"), start)


def _read_disposition(value: bytes) -> tuple[str, str | None]:
    kind, semicolon, rest = value.partition(b";")
    given = _parameters(semicolon + rest)
    name = given.get(b"name", b"").decode("latin-1")
    if kind.strip().lower() != b"form-data" or not _NAME.fullmatch(name) or b"name*" in given:
        raise NotAForm("A part has no plain name.")
    filename = given.get(b"filename", given.get(b"filename*"))
    return name, filename.decode("utf-8", "replace") if filename is not None else None


def _parameters(text: bytes) -> dict[bytes, bytes]:
    """`; name=value; name="value"`. Raises: NotAForm, also for a name that occurs twice."""
    found: dict[bytes, bytes] = {}
    done = 0
    while done < len(text):
        match = _PARAMETER.match(text, done)
        if match is None or match[1].lower() in found:
            raise NotAForm("A header of the form is malformed.")
        found[match[1].lower()] = match[2] if match[2] is not None else match[3]
        done = match.end()
    return found
