"""Takes requests from the gateway's event loop and sees that the database gets every one of them.

The loop only appends to a deque. One thread seals and journals what is there a few times a second, and hands it to
another, the only one with a database connection, which writes batch after batch and tries again for as long as the
database refuses. So a slow, locked or dead database costs the client nothing; a killed process loses what is
younger than half a second; and there is one path, whether the database is well or not.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from pathlib import Path
from typing import Final

import msgspec
from django.conf import settings

from history.entries import RequestEntry
from history.journal import Journal
from history.payloads import Payload, seal
from history.store import Batch, Health, StoreThread
from history.writer import Frame, cleaned
from llmlb_site.lib import health

log = logging.getLogger("llmlb.history")

FLUSH_SECONDS: Final = 0.4
BATCH_ROWS: Final = 1000  # what a batch costs by itself is that of a hundred rows
BATCH_BYTES: Final = 4 * 1024 * 1024
MAX_WAITING_ROWS: Final = 50_000  # between the event loop and the collecting thread
MAX_WAITING_BYTES: Final = 64 * 1024 * 1024
SPOOL: Final = "history spool"  # its name in /readyz
SPOOL_BYTES: Final = 1024 * 1024 * 1024


class Recorder:
    """One per gateway process: `start`, any number of `put`, `stop`."""

    def __init__(
        self, *, directory: Path | None = None, payloads: str | None = None, spool_bytes: int = SPOOL_BYTES
    ) -> None:
        self._payload_mode: str = payloads or settings.LLMLB.history_payloads
        self._spool_bytes = spool_bytes
        self._journal = Journal(directory or settings.LLMLB.data_dir / "spool", limit=spool_bytes)
        self._waiting: deque[RequestEntry] = deque()
        # Each counter has one writing thread: no lock on the event loop.
        self._bytes_put = 0
        self._bytes_taken = 0
        self._rows_refused = 0
        self._payloads_refused = 0
        self._rows_dropped = 0
        self._payloads_dropped = 0
        self._wake = threading.Event()
        self._stopping = False
        self._store = StoreThread(self._journal)
        self._collector = threading.Thread(target=self._collect, name="llmlb-history-collect", daemon=True)
        self._journal_complaint = _Complaint("the history cannot be spooled: %s")

    def start(self) -> None:
        self._store.start()
        self._collector.start()

    def put(self, entry: RequestEntry) -> None:
        """Keep `entry`. Called on the event loop: never waits, never raises."""
        waiting = self._waiting
        if len(waiting) >= MAX_WAITING_ROWS:
            self._rows_refused += 1
            return
        size = len(entry.request_body) + len(entry.response_body)
        if size and self._bytes_put + size - self._bytes_taken > MAX_WAITING_BYTES:
            entry.request_body = entry.response_body = b""
            self._payloads_refused += 1
        else:
            self._bytes_put += size
        waiting.append(entry)
        is_batch = len(waiting) >= BATCH_ROWS or self._bytes_put - self._bytes_taken >= BATCH_BYTES
        if is_batch and not self._wake.is_set():
            self._wake.set()

    def stop(self, timeout: float = 10.0) -> bool:
        """Bring everything that was put into the database.

        Returns:
            False if the database would not take it all within `timeout` seconds: the rest is spooled, and written
            by the next process that starts.
        """
        deadline = time.monotonic() + timeout
        self._stopping = True
        self._wake.set()
        if not self._collector.is_alive():
            return True
        self._collector.join(timeout)
        health.forget(SPOOL)
        return self._store.stop(max(0.0, deadline - time.monotonic()))

    def health(self) -> Health:
        """How far behind it is, what it had to drop, and what the database last said."""
        return self._store.health(
            waiting=len(self._waiting),
            rows_dropped=self._rows_refused + self._rows_dropped,
            payloads_dropped=self._payloads_refused + self._payloads_dropped,
        )

    # --- the collecting thread ---

    def _collect(self) -> None:
        stopping = False
        while not stopping:
            self._wake.wait(FLUSH_SECONDS)
            self._wake.clear()
            stopping = self._stopping  # read before the last look: what was put before `stop` is still taken
            while entries := self._take():
                try:
                    self._hand_over(entries)
                except Exception:
                    self._rows_dropped += len(entries)
                    log.exception("%d requests are missing from the history", len(entries))

    def _take(self) -> list[RequestEntry]:
        """The next batch: so many rows, or fewer with large bodies, that it is sealed and written in one go."""
        waiting = self._waiting
        entries: list[RequestEntry] = []
        size = 0
        while waiting and len(entries) < BATCH_ROWS and size < BATCH_BYTES:
            entry = waiting.popleft()
            entries.append(entry)
            size += len(entry.request_body) + len(entry.response_body)
        self._bytes_taken += size
        return entries

    def _hand_over(self, entries: list[RequestEntry]) -> None:
        frame = self._frame(entries)
        place = None
        try:
            place = self._journal.append(_encoded(frame))
            self._journal_complaint.over()
        except OSError as error:
            self._journal_complaint.say(error)
            if self._store.is_full:
                self._rows_dropped += len(entries)
                return
            if self._store.is_far_behind:
                self._drop_payloads(frame)
        self._store.put(Batch(frame, place))

    def _frame(self, entries: list[RequestEntry]) -> Frame:
        """Seal the bodies, or drop them where there is hardly any room left for rows."""
        if self._journal.size > self._spool_bytes // 2:
            payloads: list[Payload | None] = [None] * len(entries)
            self._payloads_dropped += sum(1 for entry in entries if entry.request_body or entry.response_body)
        else:
            payloads = seal(entries, self._payload_mode)
        for entry in entries:
            entry.request_body = entry.response_body = b""
        return Frame(entries, payloads)

    def _drop_payloads(self, frame: Frame) -> None:
        self._payloads_dropped += sum(1 for payload in frame.payloads if payload)
        frame.payloads = [None] * len(frame.entries)


def _encoded(frame: Frame) -> bytes:
    try:
        return msgspec.msgpack.encode(frame)
    except (ValueError, TypeError, OverflowError):  # lone surrogates, numbers of a hundred digits
        frame.entries = [cleaned(entry) for entry in frame.entries]
        return msgspec.msgpack.encode(frame)


class _Complaint:
    """A warning for the log, once when it begins, and for /readyz until it is over."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._said = False

    def say(self, error: Exception) -> None:
        if not self._said:
            log.warning(self._text, type(error).__name__)
            health.report(SPOOL, ok=False, detail=type(error).__name__)
        self._said = True

    def over(self) -> None:
        if self._said:
            health.report(SPOOL, ok=True)
        self._said = False
