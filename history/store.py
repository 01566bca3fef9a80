"""The thread that owns the history's database connection."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import msgspec
from django.db import DatabaseError, DataError, IntegrityError, connections

from access.models import ApiKey
from access.services import note_used
from history.journal import Journal, Place
from history.tally import last_uses
from history.terms import KnownTerms
from history.writer import Frame, cleaned, is_written, write
from llmlb_site.lib.events import publish

log = logging.getLogger("llmlb.history")

MEMORY_ROWS: Final = 20_000
MEMORY_BYTES: Final = 32 * 1024 * 1024
FIRST_PAUSE: Final = 0.1  # seconds after a failure; doubles up to LONGEST_PAUSE
LONGEST_PAUSE: Final = 2.0
HINT_SECONDS: Final = 0.5
KEY_USE_SECONDS: Final = 60.0
ADOPT_SECONDS: Final = 30.0
IDLE_SECONDS: Final = 5.0
# What a batch itself is to blame for. Everything else is the database's, and tried again.
_BATCHS_FAULT: Final = (DataError, IntegrityError, ValueError, TypeError, OverflowError)
_decoder = msgspec.msgpack.Decoder(Frame)


@dataclass(slots=True, kw_only=True, frozen=True)
class Health:
    """The state of the recorder. `backlog` counts requests that the database does not have yet, `spooled` bytes."""

    backlog: int
    spooled: int
    written: int
    rows_dropped: int
    payloads_dropped: int
    failing_since: datetime | None
    last_error: str


class Batch:
    """A frame on its way: in memory, in the journal, or both."""

    __slots__ = ("bytes", "doubtful", "frame", "place", "rows")

    def __init__(self, frame: Frame | None, place: Place | None = None, *, doubtful: bool = False) -> None:
        self.frame = frame
        self.place = place
        self.doubtful = doubtful  # it may be in the database already
        self.rows = len(frame.entries) if frame else 0
        self.bytes = sum(len(payload.bodies) for payload in frame.payloads if payload) if frame else 0

    def load(self) -> Frame | None:
        """The frame; None if the journal does not hold it any more."""
        if self.frame is not None or self.place is None:
            return self.frame
        try:
            return _decoder.decode(self.place.read() or b"")
        except msgspec.MsgspecError:
            log.error("a spooled batch of %d requests cannot be read any more", self.rows)
            return None


class StoreThread:
    """Writes batches in order, each until the database has it, and what dead processes left behind in between."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._news = threading.Condition()
        self._batches: deque[Batch] = deque()
        self._adopted: deque[Place] = deque()
        self._rows = 0  # in `_batches`
        self._bytes = 0  # in memory, of the frames in `_batches`
        self._stopping = False
        self._deadline = float("inf")
        self._written = 0
        self._dropped = 0
        self._failing_since: datetime | None = None
        self._last_error = ""
        self._uses: dict[int, datetime] = {}
        self._terms: KnownTerms = set()
        self._unseen = False  # something was written that the dashboard was not told of
        self._hint = _Every(HINT_SECONDS, at_once=True)
        self._key_use = _Every(KEY_USE_SECONDS)
        self._adopt = _Every(ADOPT_SECONDS, at_once=True)
        self._thread = threading.Thread(target=self._run, name="llmlb-history-store", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, batch: Batch) -> None:
        with self._news:
            if batch.place is not None and self.is_far_behind:
                batch.frame = None
                batch.bytes = 0
            self._batches.append(batch)
            self._rows += batch.rows
            self._bytes += batch.bytes
            self._news.notify()

    @property
    def is_full(self) -> bool:
        """More rows are waiting than are kept in memory."""
        return self._rows >= MEMORY_ROWS

    @property
    def is_far_behind(self) -> bool:
        """More is waiting than is kept in memory."""
        return self._rows >= MEMORY_ROWS or self._bytes >= MEMORY_BYTES

    def stop(self, timeout: float) -> bool:
        """Write what is waiting. Returns: whether all of it is in the database."""
        with self._news:
            self._stopping = True
            self._deadline = time.monotonic() + timeout
            self._news.notify()
        self._thread.join(timeout + 1)
        if self._thread.is_alive():  # blocked inside the database's driver; the journal has what it holds
            return False
        clean = not self._batches
        self._journal.close()
        return clean

    def health(self, *, waiting: int, rows_dropped: int, payloads_dropped: int) -> Health:
        return Health(
            backlog=waiting + self._rows,
            spooled=self._journal.size,
            written=self._written,
            rows_dropped=rows_dropped + self._dropped,
            payloads_dropped=payloads_dropped,
            failing_since=self._failing_since,
            last_error=self._last_error,
        )

    # --- the thread ---

    def _run(self) -> None:
        while True:
            try:
                if (batch := self._next()) is None:
                    break
                self._finish(batch)
            except Exception:
                log.exception("the history's thread goes on after an error")
                time.sleep(FIRST_PAUSE)
        self._note_key_uses()
        connections.close_all()

    def _next(self) -> Batch | None:
        """The next batch: new ones before those of dead processes. None when it is time to end."""
        while not self._is_over():
            with self._news:
                if self._batches:
                    return self._batches[0]
                if self._stopping:
                    return None
            if not self._adopted and self._adopt.is_due():
                self._adopt_orphans()
            if self._adopted:
                return Batch(None, self._adopted.popleft(), doubtful=True)
            self._tick()
            with self._news:
                if not (self._batches or self._stopping):
                    self._news.wait(self._hint.remaining() if self._unseen else IDLE_SECONDS)
        return None

    def _is_over(self) -> bool:
        return self._stopping and time.monotonic() > self._deadline

    def _finish(self, batch: Batch) -> None:
        if not self._write_until_done(batch):
            return
        with self._news:
            if self._batches and self._batches[0] is batch:
                self._batches.popleft()
                self._rows -= batch.rows
                self._bytes -= batch.bytes
        if batch.place is not None:
            self._journal.done(batch.place)
        self._unseen = True
        self._tick()

    def _write_until_done(self, batch: Batch) -> bool:
        """Returns: False if there was no time left before the end."""
        pause = FIRST_PAUSE
        while True:
            try:
                self._write(batch)
            except Exception as error:
                self._failed(error)
                batch.doubtful = True
            else:
                self._recovered()
                return True
            with self._news:
                self._news.wait_for(self._is_over, pause)
            if self._is_over():
                return False
            pause = min(pause * 2, LONGEST_PAUSE)

    def _write(self, batch: Batch) -> None:
        frame = batch.load()
        if frame is None or not frame.entries:
            return
        if batch.doubtful and is_written(frame):
            return
        try:
            write(frame, self._terms)
        except _BATCHS_FAULT:
            self._write_one_by_one(frame)
        self._written += len(frame.entries)
        self._uses.update(last_uses(frame.entries))

    def _write_one_by_one(self, frame: Frame) -> None:
        """A batch that the database refuses for what is in it: clean each row, drop only what is still refused."""
        for entry, payload in zip(frame.entries, frame.payloads, strict=True):
            single = Frame([cleaned(entry)], [payload])
            if is_written(single):
                continue
            try:
                write(single)
            except _BATCHS_FAULT as error:
                self._dropped += 1
                log.error("a request is missing from the history: %s", type(error).__name__)

    def _failed(self, error: Exception) -> None:
        self._last_error = type(error).__name__
        if self._failing_since is None:
            self._failing_since = datetime.now(UTC)
            log.warning("the database takes no history, it is spooled meanwhile: %s", self._last_error)
            if not isinstance(error, DatabaseError):
                log.error("writing the history failed", exc_info=error)
        connections.close_all()

    def _recovered(self) -> None:
        if self._failing_since is not None:
            log.info("the database takes history again")
        self._failing_since = None

    # --- now and then ---

    def _tick(self) -> None:
        if self._unseen and self._hint.is_due():
            self._unseen = False
            publish("history")
        if self._uses and self._key_use.is_due():
            self._note_key_uses()

    def _adopt_orphans(self) -> None:
        try:
            self._adopted.extend(self._journal.adopt())
        except OSError as error:
            log.warning("the spool cannot be read: %s", type(error).__name__)
        if self._adopted:
            log.info("%d batches of an earlier process are written now", len(self._adopted))

    def _note_key_uses(self) -> None:
        uses, self._uses = self._uses, {}
        if not uses:
            return
        try:
            note_used(ApiKey.objects.filter(pk__in=uses).values_list("public_id", flat=True), max(uses.values()))
        except DatabaseError as error:
            self._uses = uses | self._uses
            log.warning("the keys' last use was not stored: %s", type(error).__name__)


class _Every:
    """Something that is due once in a while."""

    def __init__(self, seconds: float, *, at_once: bool = False) -> None:
        self._seconds = seconds
        self._next = time.monotonic() + (0 if at_once else seconds)

    def remaining(self) -> float:
        return max(0.0, self._next - time.monotonic())

    def is_due(self) -> bool:
        """Whether it is time; if so, the next time is one period from now."""
        if self.remaining() > 0:
            return False
        self._next = time.monotonic() + self._seconds
        return True
