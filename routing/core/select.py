"""Choosing a node among those that can serve a model. Pure: figures in, a node and the reason out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from routing.core.table import NodeEntry

# Latencies count as different only beyond this: checks of twins on one network differ by noise alone, and what an
# inference takes is seconds.
LATENCY_NOISE_SECONDS: Final = 0.1
EMA_ALPHA: Final = 0.2


@dataclass(slots=True)
class LiveFigures:
    """What changes with every request, of this process: in flight, turns, speed. Owned by the event loop."""

    in_flight: dict[int, int] = field(default_factory=dict)
    turn: dict[int, float] = field(default_factory=dict)
    tokens_per_second: dict[tuple[int, str], float] = field(default_factory=dict)
    _turn_now: float = 0.0

    def has_room(self, node: NodeEntry) -> bool:
        return node.limit == 0 or self.in_flight.get(node.id, 0) < node.limit

    def begin(self, node: NodeEntry) -> None:
        """Count a request on the node, and move its turn behind the others' in proportion to its weight."""
        self.in_flight[node.id] = self.in_flight.get(node.id, 0) + 1
        start = max(self.turn.get(node.id, 0.0), self._turn_now)
        self.turn[node.id] = start + 1.0 / node.weight
        self._turn_now = start

    def end(self, node_id: int) -> None:
        left = self.in_flight[node_id] - 1
        if left:
            self.in_flight[node_id] = left
        else:
            del self.in_flight[node_id]

    def observe_speed(self, node_id: int, model: str, tokens_per_second: float) -> None:
        pair = (node_id, model)
        before = self.tokens_per_second.get(pair)
        after = tokens_per_second if before is None else before + EMA_ALPHA * (tokens_per_second - before)
        self.tokens_per_second[pair] = after

    def forget(self, node_ids: Collection[int]) -> None:
        """Drop what is known of nodes that are gone or offline: a node that comes back starts afresh."""
        for node_id in node_ids:
            self.turn.pop(node_id, None)
        for pair in [pair for pair in self.tokens_per_second if pair[0] in node_ids]:
            del self.tokens_per_second[pair]

    def next_turn(self, nodes: Sequence[NodeEntry]) -> NodeEntry:
        turn = self.turn
        return min(nodes, key=lambda node: turn.get(node.id, 0.0))


@dataclass(frozen=True, slots=True)
class Selection:
    node: NodeEntry
    reason: str


Strategy = Callable[[Sequence[NodeEntry], str, LiveFigures], Selection]


def select_node(
    model: str,
    holders: Sequence[NodeEntry],
    live: LiveFigures,
    strategy: Strategy,
    tried: Collection[int] = (),
) -> Selection | None:
    """The node that a request for `model` goes to, or None while every holder is busy (or was tried already)."""
    has_room = live.has_room
    free = [node for node in holders if has_room(node) and node.id not in tried]
    if not free:
        return None
    if len(free) == 1:
        return Selection(free[0], "only_holder" if len(holders) == 1 else "only_free")
    return strategy(free, model, live)


def least_busy(nodes: Sequence[NodeEntry], model: str, live: LiveFigures) -> Selection:
    """Fewest requests in flight for its weight; equals by latency where it really differs; then in turn."""
    in_flight = live.in_flight
    loads = [in_flight.get(node.id, 0) / node.weight for node in nodes]
    least = min(loads)
    idle = [node for node, load in zip(nodes, loads, strict=True) if load == least]
    if len(idle) == 1:
        return Selection(idle[0], "least_busy")
    near = _nearest(idle)
    return Selection(live.next_turn(near), "in_turn" if len(near) > 1 else "lowest_latency")


def round_robin(nodes: Sequence[NodeEntry], model: str, live: LiveFigures) -> Selection:
    """Strictly in turn, by weight."""
    return Selection(live.next_turn(nodes), "in_turn")


def latency(nodes: Sequence[NodeEntry], model: str, live: LiveFigures) -> Selection:
    """Lowest latency of its health checks; nodes that differ by noise alone share in turn."""
    near = _nearest(nodes)
    return Selection(live.next_turn(near), "lowest_latency" if len(near) < len(nodes) else "in_turn")


def tps(nodes: Sequence[NodeEntry], model: str, live: LiveFigures) -> Selection:
    """Most tokens per second that the next request can expect: measured speed shared with those in flight.

    A node not yet measured on this model goes first, so that a fast newcomer is found and no early winner takes all.
    """
    measured = live.tokens_per_second
    unmeasured = [node for node in nodes if (node.id, model) not in measured and not live.in_flight.get(node.id)]
    if unmeasured:
        return Selection(live.next_turn(unmeasured), "unmeasured")

    def expected(node: NodeEntry) -> float:
        return measured.get((node.id, model), 0.0) * node.weight / (live.in_flight.get(node.id, 0) + 1)

    best = max(expected(node) for node in nodes)
    fastest = [node for node in nodes if expected(node) == best]
    return Selection(live.next_turn(fastest), "highest_tps")


STRATEGIES: Final[Mapping[str, Strategy]] = {
    "least_busy": least_busy,
    "round_robin": round_robin,
    "latency": latency,
    "tps": tps,
}


def _nearest(nodes: Sequence[NodeEntry]) -> Sequence[NodeEntry]:
    known = [node.latency for node in nodes if node.latency is not None]
    if not known:
        return nodes
    bound = max(2 * min(known), min(known) + LATENCY_NOISE_SECONDS)
    return [node for node in nodes if node.latency is None or node.latency <= bound]
