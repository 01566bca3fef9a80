"""The gateway's other half: one thread that reads the configuration and writes exclusions, so that requests need not.

Jobs run one after another. So an exclusion is in the database before the next table is read from there, and a table
never brings back what a request has just taken out.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from django.db import close_old_connections

from llmlb_site.lib import events, health
from nodes.overdue import Overdue
from routing import snapshot
from routing.budgets import SpentTokens
from routing.core.limits import Limit
from routing.core.table import Principal, RoutingTable
from routing.state.limits import Tokens

log = logging.getLogger("llmlb.control")

COMPARE_SECONDS: Final = 1.0
# The whole table is read again after this long, for what is not announced: latencies move with every check.
REFRESH_SECONDS: Final = 15.0
RETRY_SECONDS: Final = 1.0
SETTLE_SECONDS: Final = 0.5
# A database that has not answered for so long (it hangs, or a table is locked) is as good as gone.
STUCK_SECONDS: Final = 8.0

Job = Callable[[], object]


class Control:
    """Owns the thread. The `on_…` get what was read, through `deliver`: on the event loop."""

    def __init__(
        self,
        on_table: Callable[[RoutingTable], None],
        on_principals: Callable[[dict[str, Principal]], None],
        deliver: Callable[[Job], None],
        on_tokens: Callable[[list[Tokens]], None],
    ) -> None:
        self._on_table = on_table
        self._on_principals = on_principals
        self._deliver = deliver
        self._on_tokens = on_tokens
        self._budgets: tuple[Limit, ...] = ()
        self._spent = SpentTokens()
        self._overdue = Overdue()
        self._table = RoutingTable()
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="llmlb-control", daemon=True)
        self._seen = snapshot.Revisions(-1, -1)
        self._read_at = 0.0
        self._budgets_due = 0.0
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._unstored = 0
        self._next_look: Future[None] | None = None
        self._awaited: tuple[Future[None], asyncio.Future[None]] | None = None
        self._unsubscribe: list[Callable[[], None]] = []
        # How many changes were announced, and how many of them the event loop's tables contain.
        self._announced = 0
        self._contained = 0
        # Whether these differ: something was changed in this process since the event loop's tables were read.
        self.stale = False

    def start(self) -> None:
        """Begin, and wait for the first tables: a request is never answered from an empty one."""
        for topic in events.COUNTED:
            self._unsubscribe.append(events.subscribe(topic, self._on_event))
        self._unsubscribe.append(events.on_settle(self._settle))
        self._thread.start()
        try:
            self.look().result(timeout=30)
        except Exception as error:
            log.warning("the configuration cannot be read yet: %s", type(error).__name__)

    def stop(self) -> None:
        """Do what is left to do, then end."""
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        self._jobs.put(None)
        self._thread.join(timeout=10)
        health.forget("configuration")
        self._overdue.forget()

    def look(self) -> Future[None]:
        """Compare the revisions, and read what changed. Callers that ask at the same time share one look."""
        with self._lock:
            if self._next_look is None:
                self._next_look = Future()
                self._jobs.put(self._look_for_asker)
            return self._next_look

    async def catch_up(self, timeout: float = 0.25) -> None:
        """Wait until the tables are as new as this moment, or the database too slow for it to matter."""
        look = self.look()
        if self._awaited is None or self._awaited[0] is not look:  # one for all who wait: refusals come by the hundred
            self._awaited = (look, asyncio.wrap_future(look))
            self._awaited[1].add_done_callback(_note_failure)
        await asyncio.wait((self._awaited[1],), timeout=timeout)

    def reread(self) -> None:
        """Read the table even if nothing has changed in the database: something has here."""
        self._read_at = 0.0
        self.look()

    def do(self, job: Job, *, what: str) -> None:
        """Run `job` in the thread, again and again until the database takes it."""
        with self._lock:
            self._unstored += 1
        self._jobs.put(lambda: self._persist(job, what))

    def _settle(self) -> None:
        """Wait for the jobs that are under way, in whatever thread but ours."""
        if self._unstored and threading.current_thread() is not self._thread:
            done = threading.Event()
            self._jobs.put(done.set)
            done.wait(SETTLE_SECONDS)

    # --- in the thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        compare_at = time.monotonic() + COMPARE_SECONDS
        while True:
            try:
                job = self._jobs.get(timeout=max(0.0, compare_at - time.monotonic()))
            except queue.Empty:
                job = self._look_quietly
            if job is None:
                break
            job()
            if time.monotonic() >= compare_at:  # also where there is always somebody who asks
                if job != self._look_quietly:
                    self._look_quietly()
                compare_at = time.monotonic() + COMPARE_SECONDS
            close_old_connections()
        close_old_connections()

    def _look_for_asker(self) -> None:
        with self._lock:
            asked, self._next_look = self._next_look, None
        assert asked is not None
        try:
            self._look()
        except Exception as error:
            asked.set_exception(error)
        else:
            asked.set_result(None)

    def _look_quietly(self) -> None:
        try:
            self._look()
            self._overdue.look()
        except Exception as error:
            health.report("configuration", ok=False, detail=f"cannot be read: {type(error).__name__}")
        else:
            health.report("configuration", ok=True, again_within=STUCK_SECONDS)

    def _look(self) -> None:
        announced = self._announced  # before reading: what changes meanwhile is for the next look
        now = snapshot.read_revisions()
        if now.keys != self._seen.keys:
            principals = snapshot.read_principals()
            limits = (limit for each in principals.values() if each.limits is not None for limit in each.limits.all)
            self._budgets = tuple(limit for limit in limits if limit.has_budget)
            self._deliver(lambda: self._on_principals(principals))
        if now.fleet != self._seen.fleet or time.monotonic() - self._read_at > REFRESH_SECONDS:
            self._read_at = time.monotonic()
            table = self._table = snapshot.read_table()
            self._deliver(lambda: self._on_table(table))
        if self._budgets and (now != self._seen or time.monotonic() > self._budgets_due):
            # Soon at first: what the process before this one did not get to store is being stored now.
            age = time.monotonic() - self._began
            self._budgets_due = time.monotonic() + min(age, REFRESH_SECONDS)
            tokens = self._spent.read(self._budgets, self._table.resolve)
            self._deliver(lambda: self._on_tokens(tokens))
        self._seen = now
        self._deliver(lambda: self._contains(announced))

    def _contains(self, announced: int) -> None:
        with self._lock:
            self._contained = announced
            self.stale = announced != self._announced

    def _persist(self, job: Job, what: str) -> None:
        try:
            job()
        except Exception as error:
            log.warning("%s could not be stored, will be tried again: %s", what, type(error).__name__)
            again = threading.Timer(RETRY_SECONDS, lambda: self.do(job, what=what))
            again.daemon = True
            again.start()
        finally:
            with self._lock:
                self._unstored -= 1

    def _on_event(self, topic: str, payload: events.Payload) -> None:
        """In the publisher's thread, after its commit: from now on requests wait for the new table."""
        if threading.current_thread() is not self._thread:
            with self._lock:
                self._announced += 1
                self.stale = True
        self.look()


def _note_failure(look: asyncio.Future[None]) -> None:
    if not look.cancelled() and (error := look.exception()) is not None:
        log.debug("the configuration could not be read: %s", type(error).__name__)
