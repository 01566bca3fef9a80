"""Server-sent events as bytes: cut a stream into whole events, and read the data of one.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import re
from typing import Final

DONE: Final = b"[DONE]"
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
# An event ends with an empty line; a line ends with LF, CRLF or CR.
_BOUNDARY: Final = re.compile(rb"\r\n\r\n|\n\n|\r\r|\n\r\n|\r\n\n")
_LONGEST_BOUNDARY: Final = 4
MAX_EVENT_BYTES: Final = 16 * 1024 * 1024


class EventTooLong(ValueError):
    """More than `MAX_EVENT_BYTES` without an empty line: this is not an event stream."""


class EventSplitter:
    """Cuts bytes as they come into whole events, each with the empty line that ends it; the `rest` waits."""

    __slots__ = ("rest",)

    def __init__(self) -> None:
        self.rest = bytearray()  # what came after the last whole event

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events that are whole now. Joined, they are byte for byte what came in.

        Raises: EventTooLong.
        """
        # The usual case, one whole event. `rfind`: of CPython's ways to look for a few bytes, it takes half the time.
        if chunk[-2:] == b"\n\n" and not self.rest and chunk.rfind(b"\n\n", 0, -1) < 0 and chunk.rfind(b"\r") < 0:
            return [chunk]
        # What was searched once is not searched, or copied, again: an event may be megabytes.
        unsearched = max(0, len(self.rest) - _LONGEST_BOUNDARY + 1)
        data = self._grown(chunk) if self.rest else chunk
        events = []
        start = 0
        for match in _BOUNDARY.finditer(data, unsearched):
            events.append(bytes(data[start : match.end()]))
            start = match.end()
        if start or data is chunk:
            self.rest = bytearray(data[start:])
        if len(self.rest) > MAX_EVENT_BYTES:
            raise EventTooLong(f"an event is longer than {MAX_EVENT_BYTES} bytes")
        return events

    def _grown(self, chunk: bytes) -> bytearray:
        self.rest += chunk
        return self.rest


def data_of(event: bytes) -> bytes:
    """The event's data: the values of its `data` lines, joined by LF. Empty for comments and other events."""
    given = event.splitlines()
    if len(given) == 2 and not given[1] and given[0].startswith(b"data: "):  # the usual case
        return given[0][6:]
    lines = []
    if event.startswith(_BYTE_ORDER_MARK):  # a stream may begin with one, which is no part of its first line
        given[0] = given[0].removeprefix(_BYTE_ORDER_MARK)
    for line in given:
        if line.startswith(b"data:"):
            value = line[5:]
            lines.append(value[1:] if value.startswith(b" ") else value)
    return b"\n".join(lines)
