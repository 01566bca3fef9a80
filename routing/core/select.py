"""Choosing a node among those that can serve a model. Pure: figures in, a node and the reason out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

import msgspec

from routing.core.table import NodeEntry, Pair, RoutingTable

# Latencies count as different only beyond this: checks of twins on one network differ by noise alone, and what an
# inference takes is seconds.
LATENCY_NOISE_SECONDS: Final = 0.1
EMA_ALPHA: Final = 0.2
# A node that came back is given its share little by little: its caches are cold, and it may have come back ill.
SLOW_START_SECONDS: Final = 10.0
SLOW_START_SHARE: Final = 0.1
# A model that was excluded for less time was not away: its exclusion was taken back, or a probe went well at once.
AWAY_SECONDS: Final = 5.0
# Among more holders than this, a part of them is looked at for each request, in turn: as good, and 20 times as fast.
MANY_HOLDERS: Final = 32
# A node beyond these is asked only where all are (SPEC-589f2df1). Percent.
GPU_BUSY: Final = 80.0
GPU_MEMORY_FULL: Final = 90.0
# How far above its fair share of the requests a node may be, for the sake of the prompts that it remembers.
PREFIX_LOAD_BOUND: Final = 1.25


@dataclass(slots=True)
class LiveFigures:
    """What changes with every request, of this process: in flight, turns, speed. Owned by the event loop.

    `warming` are the nodes that came back a short while ago, and when: by `clock`, in seconds.
    """

    in_flight: dict[int, int] = field(default_factory=dict)
    turn: dict[int, float] = field(default_factory=dict)
    tokens_per_second: dict[tuple[int, str], float] = field(default_factory=dict)
    warming: dict[int, float] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    _turn_now: float = 0.0
    _out_since: dict[Pair, float] = field(default_factory=dict)
    _window: int = 0

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

    def follow(self, before: RoutingTable, after: RoutingTable) -> None:
        """The fleet has changed: nodes that are gone are forgotten, and those that came back start slowly."""
        gone = [id for id, node in before.nodes.items() if id not in after.nodes or not after.nodes[id].online]
        if gone:
            self.forget(gone)
        now = self.clock()
        back = {id for id, node in before.nodes.items() if not node.online and id in after.nodes}
        for pair in after.excluded - before.excluded:
            self._out_since[pair] = now
        for pair in before.excluded - after.excluded:
            if now - self._out_since.pop(pair, 0.0) >= AWAY_SECONDS:
                back.add(pair[0])
        for node_id in back:
            if node_id in after.nodes and after.nodes[node_id].routable:
                self.warming[node_id] = now

    def forget(self, node_ids: Collection[int]) -> None:
        """Drop what is known of nodes that are gone or offline: a node that comes back starts afresh."""
        for node_id in node_ids:
            self.turn.pop(node_id, None)
            self.warming.pop(node_id, None)
        for pair in [pair for pair in self.tokens_per_second if pair[0] in node_ids]:
            del self.tokens_per_second[pair]

    def next_turn(self, nodes: Sequence[NodeEntry]) -> NodeEntry:
        turn = self.turn
        turns = [turn.get(node.id, 0.0) for node in nodes]
        return nodes[turns.index(min(turns))]

    def eased(self, nodes: Sequence[NodeEntry]) -> Sequence[NodeEntry]:
        """The nodes without those that came back a short while ago, unless it is their turn, at their small weight."""
        now = self.clock()
        for node_id in [id for id, since in self.warming.items() if now - since >= SLOW_START_SECONDS]:
            del self.warming[node_id]
        settled = [node for node in nodes if node.id not in self.warming]
        eased = [self._eased(node, now) for node in nodes if node.id in self.warming]
        if not settled:
            return eased
        return settled + [node for node in eased if self.turn.get(node.id, 0.0) <= self._turn_now]

    def part_of(self, nodes: Sequence[NodeEntry], affinity: int) -> Sequence[NodeEntry]:
        """Some of many nodes: the next ones at each call, and always the same for one affinity."""
        count = len(nodes)
        if affinity:
            start = affinity * count >> 32  # a node more or less moves this by one: nearly all are the same as before
        else:
            start = self._window = (self._window + MANY_HOLDERS) % count
        return (*nodes[start : start + MANY_HOLDERS], *nodes[: max(0, start + MANY_HOLDERS - count)])

    def _eased(self, node: NodeEntry, now: float) -> NodeEntry:
        grown = (now - self.warming[node.id]) / SLOW_START_SECONDS
        return replace(node, weight=node.weight * (SLOW_START_SHARE + (1 - SLOW_START_SHARE) * grown))


class Selection(msgspec.Struct, frozen=True):
    node: NodeEntry
    reason: str


# Of nodes with room (two or more), for a model, with what is live; the affinity is 0 for a request that has none.
Strategy = Callable[[Sequence[NodeEntry], str, LiveFigures, int], Selection]


def select_node(
    model: str,
    holders: Sequence[NodeEntry],
    live: LiveFigures,
    strategy: Strategy,
    tried: Collection[int] = (),
    affinity: int = 0,
) -> Selection | None:
    """The node that a request for `model` goes to, or None while every holder is busy (or was tried already).

    `affinity`: requests with the same one (32 bits, 0 = none) go to the same node, in the mode that heeds it.
    """
    if len(holders) == 1:
        only = holders[0]
        return (
            Selection(only, "only_holder")
            if only.id not in tried and (only.limit == 0 or live.has_room(only))
            else None
        )
    if len(holders) > MANY_HOLDERS:
        part = live.part_of(holders, affinity)
        found = select_node(model, part, live, strategy, tried, affinity)
        if found is not None:
            return found
    in_flight = live.in_flight
    free = [node for node in holders if node.limit == 0 or in_flight.get(node.id, 0) < node.limit]
    if tried:
        free = [node for node in free if node.id not in tried]
    if len(free) > 1:
        return strategy(live.eased(free) if live.warming else free, model, live, affinity)
    return Selection(free[0], "only_free") if free else None


def least_busy(nodes: Sequence[NodeEntry], model: str, live: LiveFigures, affinity: int = 0) -> Selection:
    """Fewest requests in flight for its weight; equals by latency where it really differs; then in turn."""
    idle = _least_loaded(nodes, live)
    if len(idle) == 1:
        return Selection(idle[0], "least_busy")
    near = _nearest(idle)
    return Selection(live.next_turn(near), "in_turn" if len(near) > 1 else "lowest_latency")


def round_robin(nodes: Sequence[NodeEntry], model: str, live: LiveFigures, affinity: int = 0) -> Selection:
    """Strictly in turn, by weight."""
    return Selection(live.next_turn(nodes), "in_turn")


def latency(nodes: Sequence[NodeEntry], model: str, live: LiveFigures, affinity: int = 0) -> Selection:
    """Lowest latency of its health checks; nodes that differ by noise alone share in turn."""
    near = _nearest(nodes)
    return Selection(live.next_turn(near), "lowest_latency" if len(near) < len(nodes) else "in_turn")


def tps(nodes: Sequence[NodeEntry], model: str, live: LiveFigures, affinity: int = 0) -> Selection:
    """Most tokens per second that the next request can expect: measured speed shared with those in flight.

    A node not yet measured on this model goes first, so that a fast newcomer is found and no early winner takes all.
    """
    measured, in_flight = live.tokens_per_second, live.in_flight
    speeds = [measured.get((node.id, model), 0.0) for node in nodes]
    if 0.0 in speeds:
        unmeasured = [node for node in nodes if (node.id, model) not in measured and node.id not in in_flight]
        if unmeasured:
            return Selection(live.next_turn(unmeasured), "unmeasured")
    expected = [
        speed * node.weight / (in_flight.get(node.id, 0) + 1) for node, speed in zip(nodes, speeds, strict=True)
    ]
    best = max(expected)
    fastest = [node for node, speed in zip(nodes, expected, strict=True) if speed == best]
    return Selection(live.next_turn(fastest), "highest_tps")


def metrics(nodes: Sequence[NodeEntry], model: str, live: LiveFigures, affinity: int = 0) -> Selection:
    """The least busy of the nodes whose GPU and its memory have room, as they report it (SPEC-589f2df1).

    Of equals the one with the highest capability score; of those with the same, in turn. Where none has room, and for
    nodes that report nothing, requests in flight alone decide.
    """
    fit = [node for node in nodes if node.gpu_usage <= GPU_BUSY and node.gpu_memory <= GPU_MEMORY_FULL]
    if len(fit) == 1:
        return Selection(fit[0], "gpu_has_room")
    idle = _least_loaded(fit or nodes, live)
    best = max(node.gpu_score for node in idle)
    strongest = [node for node in idle if node.gpu_score == best]
    if len(strongest) == 1 and len(idle) > 1:
        return Selection(strongest[0], "highest_gpu_score")
    return least_busy(strongest, model, live)


def _least_loaded(nodes: Sequence[NodeEntry], live: LiveFigures) -> list[NodeEntry]:
    """The nodes with the fewest requests in flight for their weight."""
    in_flight = live.in_flight
    loads = [in_flight.get(node.id, 0) / node.weight for node in nodes]
    least = min(loads)
    if loads.count(least) == 1:
        return [nodes[loads.index(least)]]
    return [node for node, load in zip(nodes, loads, strict=True) if load == least]


def prefix(nodes: Sequence[NodeEntry], model: str, live: LiveFigures, affinity: int = 0) -> Selection:
    """The same node for the same beginning of a prompt, which it may have in its cache, unless it is far too busy.

    Rendezvous hashing with bounded loads: a node that comes or goes moves only the prompts that are its own.
    """
    if not affinity:
        return least_busy(nodes, model, live)
    in_flight = live.in_flight
    running = [in_flight.get(node.id, 0) for node in nodes]
    share = (sum(running) + 1) / sum([node.weight for node in nodes])
    bound = PREFIX_LOAD_BOUND * share
    allowed = [node for node, count in zip(nodes, running, strict=True) if count < bound * node.weight]
    return Selection(max(allowed, key=partial(_rank, affinity)), "same_prefix")


STRATEGIES: Final[Mapping[str, Strategy]] = {
    "least_busy": least_busy,
    "metrics": metrics,
    "latency": latency,
    "tps": tps,
    "round_robin": round_robin,
    "prefix": prefix,
}


def _rank(affinity: int, node: NodeEntry) -> float:
    """How a node stands for an affinity: as if drawn by lot, each node as often first as it has weight."""
    mixed = (affinity ^ node.id * 0x9E3779B1) * 0x85EBCA6B & 0xFFFFFFFF
    mixed = (mixed ^ mixed >> 15) * 0xC2B2AE35 & 0xFFFFFFFF
    return -node.weight / math.log((mixed ^ mixed >> 16) / 2**32 + 2**-33)


def _nearest(nodes: Sequence[NodeEntry]) -> Sequence[NodeEntry]:
    known = [node.latency for node in nodes if node.latency is not None]
    if not known:
        return nodes
    least = min(known)
    bound = max(2 * least, least + LATENCY_NOISE_SECONDS)
    if max(known) <= bound:
        return nodes
    return [node for node in nodes if node.latency is None or node.latency <= bound]
