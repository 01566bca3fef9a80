"""What requests share while they run: slots on nodes, and the queue for them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from routing.core.select import LiveFigures
from routing.core.table import NodeEntry, RoutingTable


@dataclass(frozen=True, slots=True)
class QueueStats:
    """The queue now and over the last hour (SPEC-da253baa). Times are milliseconds."""

    waiting: int
    processing: int
    avg_wait_ms: float
    avg_process_ms: float
    timeouts: int
    rejected: int


class Lease(Protocol):
    """One slot on one node. Held until the last byte; `release` may be called on every path, as often as it comes."""

    node: NodeEntry
    reason: str

    def release(self) -> None: ...


class Place(Protocol):
    """One place in the queue. `position` counts from 1."""

    position: int

    async def wait(self, timeout: float) -> Lease:
        """The slot, when it is this place's turn. Cancelling leaves the queue.

        Raises: TimeoutError; Refusal (503), when the last node that could have served it is gone.
        """

    def give_up(self) -> None:
        """Leave the queue, as often as it comes; a slot that was granted in the same moment goes to the next."""


class State(Protocol):
    """Slots and queue over one routing table."""

    table: RoutingTable

    @property
    def live(self) -> LiveFigures: ...

    def install(self, table: RoutingTable) -> None:
        """From now on this is the fleet. Who waits is served, or told, at once."""

    def take_now(self, model: str, key: int, tried: Collection[int] = (), affinity: int = 0) -> Lease | None:
        """As `take`, where nobody needs to be asked for it; None says nothing."""

    async def take(self, model: str, key: int, tried: Collection[int] = (), affinity: int = 0) -> Lease | None:
        """A slot for `model` now, or None while every holder (but those tried) is busy. See `select_node`."""

    async def queue(self, model: str, key: int, tried: Collection[int] = (), affinity: int = 0) -> Place | None:
        """A place in the queue, or None if it is full."""

    def estimated_wait(self, position: int) -> float:
        """Seconds: recent mean processing time x position."""

    def stats(self) -> QueueStats:
        """Of all processes that share the state, as far as known."""

    def in_flight_here(self) -> Mapping[int, int]:
        """Requests of this process per node id; `live.in_flight` has those of the other processes too."""

    def waiting_here(self) -> int:
        """Requests of this process in the queue."""

    def leave(self) -> None:
        """The process ends: what it still holds is free."""
