"""One file: fetched, taken up again where it broke off, and believed only when its length and hash are right."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Final

import httpx

from nodes.runtime.fetching.failures import Cancelled, FetchFailed, Interrupted
from nodes.runtime.fetching.part import PartFile
from nodes.runtime.fetching.plan import RemoteFile
from nodes.runtime.fetching.web import Web

# Attempts in a row that bring nothing; one that brings a byte begins the count anew.
FRUITLESS: Final = 5
_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class Transfer:
    """Brings one file to `target`. Times are seconds."""

    def __init__(
        self,
        web: Web,
        file: RemoteFile,
        target: Path,
        *,
        told: Callable[[int], None],
        kept: Callable[[int], None],
        stop: Event,
        first_pause: float = 1.0,
    ) -> None:
        """`told` gets each number of bytes as they arrive, and a negative one where they had to be thrown away; `kept`
        those that an earlier run has left.
        """
        self._web = web
        self._file = file
        self._target = target
        self._told = told
        self._kept = kept
        self._stop = stop
        self._first_pause = first_pause
        self._size = file.size

    def run(self) -> None:
        """Raises: FetchFailed. What has arrived stays for the next run, unless it is wrong."""
        with PartFile(self._target, self._file) as part:
            part.recover(self._kept)
            if self._size is not None and part.size > self._size:
                self._restart(part)
            if self._size is None or part.size < self._size:
                self._until_whole(part)
            if not part.matches():
                self._told(-part.size)
                part.remove()
                raise FetchFailed(f"{self._file.path} has another hash than was promised; it was removed")
            part.finish()

    def _until_whole(self, part: PartFile) -> None:
        fruitless = 0
        while True:
            before = part.size
            try:
                return self._attempt(part)
            except Interrupted as error:
                fruitless = 0 if part.size > before else fruitless + 1
                if fruitless >= FRUITLESS:
                    raise FetchFailed(
                        f"{error}; given up after {fruitless} attempts, what has arrived is kept"
                    ) from error
                if self._stop.wait(max(error.wait, self._first_pause * 2 ** min(fruitless, 5))):
                    raise Cancelled from error

    def _attempt(self, part: PartFile) -> None:
        headers = {}
        if part.size:
            headers["Range"] = f"bytes={part.size}-"
            if part.etag:
                headers["If-Range"] = part.etag
        with self._web.get(self._file.url, headers) as response:
            if response.status_code == 416:
                self._restart(part)
                raise Interrupted("the server has no more of the file than is here already")
            self._align(part, response)
            self._expect_length(part, response)
            self._receive(part, response)

    def _align(self, part: PartFile, response: httpx.Response) -> None:
        """Make what is here the beginning of what comes."""
        if response.status_code == 206:
            match = _RANGE.fullmatch(response.headers.get("content-range", ""))
            if match and int(match[1]) == part.size and match[3] in {"*", str(self._size or match[3])}:
                return
            self._restart(part)
            raise Interrupted("the server sent another part than was asked for")
        self._restart(part, response.headers.get("etag", ""))  # the whole of it, whatever was asked for

    def _expect_length(self, part: PartFile, response: httpx.Response) -> None:
        length = response.headers.get("content-length", "")
        if not length.isdigit():
            return
        whole = part.size + int(length)
        if self._size is None:
            self._size = whole
        elif whole != self._size:
            raise FetchFailed(f"{self._file.path} has {whole} bytes there, and {self._size} were promised")

    def _receive(self, part: PartFile, response: httpx.Response) -> None:
        try:
            for piece in response.iter_raw():  # as they come: gathered ones would be lost when it breaks off
                part.append(piece)
                self._told(len(piece))
                if self._size is not None and part.size > self._size:
                    self._restart(part)
                    raise FetchFailed(f"{self._file.path} is longer than was promised; it was removed")
                if self._stop.is_set():
                    raise Cancelled
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise FetchFailed("the disk is full; what has arrived is kept") from error
            raise FetchFailed(f"{self._file.path} cannot be written: {error.strerror}") from error
        if self._size is not None and part.size < self._size:
            raise Interrupted(f"{self._file.path} broke off after {part.size} of {self._size} bytes")

    def _restart(self, part: PartFile, etag: str = "") -> None:
        self._told(-part.size)
        part.restart(etag)
