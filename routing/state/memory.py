"""The state of one process: everything on its event loop, so every step is atomic without a lock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping

from routing.core.errors import Refusal, no_capable_node
from routing.core.queue import FairQueue, Waiting
from routing.core.select import LiveFigures, Selection, Strategy, select_node
from routing.core.table import RoutingTable
from routing.state.base import QueueStats
from routing.state.hour import Counters, Hour


class MemoryLease:
    """See `state.base.Lease`."""

    __slots__ = ("_began", "_state", "node", "reason")

    def __init__(self, state: MemoryState, selection: Selection) -> None:
        self._state: MemoryState | None = state
        self._began = time.monotonic()
        node = self.node = selection.node
        self.reason = selection.reason
        state.live.begin(node)

    def release(self) -> None:
        state = self._state
        if state is not None:
            self._state = None
            now = time.monotonic()
            state._released(self.node.id, now, now - self._began)

    def forget(self) -> None:
        """It was none: releasing it does nothing."""
        self._state = None


class MemoryPlace:
    """See `state.base.Place`. `number` is for states that are shared: how others speak of this place."""

    __slots__ = ("_began", "_future", "_state", "number", "position", "waiting")

    def __init__(self, state: MemoryState, model: str, key: int, tried: frozenset[int], affinity: int) -> None:
        self._state = state
        self._began = time.monotonic()
        self._future: asyncio.Future[MemoryLease] = asyncio.get_running_loop().create_future()
        self.waiting: Waiting[MemoryLease] = Waiting(key, model, self.grant, tried, affinity)
        self.number = 0
        state._queue.push(self.waiting)
        self.position = len(state._queue)

    def is_over(self) -> bool:
        """It has been served, or told that it will not be: `wait` says which."""
        return self._future.done()

    async def wait(self, timeout: float) -> MemoryLease:
        try:
            async with asyncio.timeout(timeout):
                lease = await self._future
        except TimeoutError:
            self.give_up()
            self._state._counters.timeouts.add(time.monotonic())
            raise
        except BaseException:
            self.give_up()
            raise
        waited = time.monotonic() - self._began
        self._state._counters.waits.add(time.monotonic(), waited)
        return lease

    def refuse(self, refusal: Refusal) -> None:
        if not self._future.done():
            self._future.set_exception(refusal)

    def grant(self, lease: MemoryLease) -> None:
        if self._future.done():
            lease.release()
        else:
            self._future.set_result(lease)

    def give_up(self) -> None:
        self._state._leave(self)
        if self._future.done() and not self._future.cancelled() and self._future.exception() is None:
            self._future.result().release()


class MemoryState:
    """`State` of one process. Counters die with the process, so a crash leaks no slot."""

    def __init__(self, *, strategy: Strategy, queue_max: int) -> None:
        self.table = RoutingTable()
        self.live = LiveFigures()
        self._strategy = strategy
        self._queue_max = queue_max
        self._queue: FairQueue[MemoryLease] = FairQueue()
        self._places: dict[int, MemoryPlace] = {}
        self._counters = Counters()

    def install(self, table: RoutingTable) -> None:
        self.live.follow(self.table, table)
        self.table = table
        if len(self._queue):
            for place in list(self._places.values()):
                self._tell_if_hopeless(place)
            self._serve()

    def take_now(self, model: str, key: int, tried: Collection[int] = (), affinity: int = 0) -> MemoryLease | None:
        lease = self._lease(model, tried, affinity)
        if lease is not None:
            self._queue.took_turn(key)
        return lease

    async def take(self, model: str, key: int, tried: Collection[int] = (), affinity: int = 0) -> MemoryLease | None:
        return self.take_now(model, key, tried, affinity)

    async def queue(self, model: str, key: int, tried: Collection[int] = (), affinity: int = 0) -> MemoryPlace | None:
        if len(self._queue) >= self._queue_max:
            self._counters.rejections.add(time.monotonic())
            return None
        place = MemoryPlace(self, model, key, frozenset(tried), affinity)
        self._places[id(place.waiting)] = place
        self._tell_if_hopeless(place)  # the last node may have gone while its request was looked at
        return place

    def estimated_wait(self, position: int) -> float:
        return self._hour().mean_processing * position

    def stats(self) -> QueueStats:
        hour = self._hour()
        return QueueStats(
            waiting=len(self._queue) + self._waiting_elsewhere,
            processing=sum(self.live.in_flight.values()),
            avg_wait_ms=hour.mean_wait * 1000,
            avg_process_ms=hour.mean_processing * 1000,
            timeouts=hour.timeouts,
            rejected=hour.rejections,
        )

    def in_flight_here(self) -> Mapping[int, int]:
        return self.live.in_flight

    def waiting_here(self) -> int:
        return len(self._queue)

    def leave(self) -> None:
        """Nobody else counts what is here."""

    # What is known of other processes that share the state; of this one alone, nothing.
    _waiting_elsewhere = 0

    def _hour(self) -> Hour:
        return self._counters.hour(time.monotonic())

    # --- inside ---------------------------------------------------------------------------------------------------

    def _lease(self, model: str, tried: Collection[int], affinity: int) -> MemoryLease | None:
        holders = self.table.holders.get(model)
        if not holders:
            return None
        selection = select_node(model, holders, self.live, self._strategy, tried, affinity)
        return MemoryLease(self, selection) if selection is not None else None

    def _released(self, node_id: int, now: float, seconds: float) -> None:
        self.live.end(node_id)
        self._counters.processing.add(now, seconds)
        if self._places:
            self._serve()

    def _serve(self) -> None:
        self._queue.serve(self._grant)

    def _grant(self, waiting: Waiting[MemoryLease]) -> MemoryLease | None:
        lease = self._lease(waiting.model, waiting.tried, waiting.affinity)
        if lease is not None:
            self._places.pop(id(waiting), None)
        return lease

    def _leave(self, place: MemoryPlace) -> None:
        self._queue.remove(place.waiting)
        self._places.pop(id(place.waiting), None)

    def _tell_if_hopeless(self, place: MemoryPlace) -> None:
        """Whoever waits for a model that no node can serve any more is told now, not when the wait is over."""
        waiting = place.waiting
        if not any(node.id not in waiting.tried for node in self.table.holders.get(waiting.model, ())):
            self._leave(place)
            place.refuse(no_capable_node(waiting.model))
