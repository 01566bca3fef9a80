"""Which node is chosen: strategies, limits, weights, turns."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.core.select import STRATEGIES, LiveFigures, Strategy, select_node
from routing.core.table import NodeEntry, RoutingTable


def node(id: int, **values: object) -> NodeEntry:
    return NodeEntry(id=id, name=f"n{id}", base_url=f"http://n{id}", **values)  # type: ignore[arg-type]


def serve(nodes: list[NodeEntry], strategy: Strategy, count: int, *, keep: bool = False) -> Counter[int]:
    """Choose `count` times; each request ends before the next unless `keep`."""
    live = LiveFigures()
    chosen: Counter[int] = Counter()
    for _ in range(count):
        selection = select_node("m", nodes, live, strategy)
        assert selection is not None
        live.begin(selection.node)
        chosen[selection.node.id] += 1
        if not keep:
            live.end(selection.node.id)
    return chosen


@pytest.mark.parametrize("strategy", ["least_busy", "round_robin", "latency"])
def test_thirty_over_three_idle_nodes_are_ten_each(strategy: str) -> None:
    twins = [node(1, latency=0.004), node(2, latency=0.011), node(3, latency=0.002)]
    assert serve(twins, STRATEGIES[strategy], 30) == {1: 10, 2: 10, 3: 10}


def test_least_busy_prefers_the_idle_node() -> None:
    live = LiveFigures()
    busy, idle = node(1, latency=0.001), node(2, latency=3.0)
    live.begin(busy)
    selection = select_node("m", [busy, idle], live, STRATEGIES["least_busy"])
    assert selection is not None
    assert (selection.node, selection.reason) == (idle, "least_busy")


def test_equals_are_told_apart_by_latency_where_it_really_differs() -> None:
    near, far = node(1, latency=0.010), node(2, latency=0.900)
    assert serve([near, far], STRATEGIES["least_busy"], 10) == {1: 10}


@pytest.mark.parametrize("strategy", ["least_busy", "round_robin"])
def test_a_node_of_weight_three_gets_three_times_as_many(strategy: str) -> None:
    assert serve([node(1, weight=3), node(2)], STRATEGIES[strategy], 40) == {1: 30, 2: 10}
    assert serve([node(1, weight=3), node(2)], STRATEGIES[strategy], 40, keep=True) == {1: 30, 2: 10}


def test_tps_tries_the_unmeasured_and_then_shares_the_fast_ones_load() -> None:
    live = LiveFigures()
    fast, slow = node(1), node(2)
    live.observe_speed(1, "m", 100.0)
    first = select_node("m", [fast, slow], live, STRATEGIES["tps"])
    assert first is not None
    assert (first.node, first.reason) == (slow, "unmeasured")
    live.observe_speed(2, "m", 40.0)
    chosen = Counter[int]()
    for _ in range(4):
        selection = select_node("m", [fast, slow], live, STRATEGIES["tps"])
        assert selection is not None
        live.begin(selection.node)
        chosen[selection.node.id] += 1
    assert chosen == {1: 3, 2: 1}, "the fastest takes more, not everything"


def test_a_node_that_was_away_does_not_catch_up() -> None:
    live = LiveFigures()
    old, back = node(1), node(2)
    for _ in range(100):
        live.begin(old)
        live.end(1)
    chosen = Counter[int]()
    for _ in range(10):
        selection = select_node("m", [old, back], live, STRATEGIES["round_robin"])
        assert selection is not None
        live.begin(selection.node)
        live.end(selection.node.id)
        chosen[selection.node.id] += 1
    assert chosen == {1: 5, 2: 5}


@given(
    limits=st.lists(st.integers(0, 4), min_size=1, max_size=6),
    strategy=st.sampled_from(sorted(STRATEGIES)),
    steps=st.lists(st.booleans(), max_size=60),
)
def test_a_limit_is_never_exceeded_and_a_free_node_always_found(
    limits: list[int], strategy: str, steps: list[bool]
) -> None:
    nodes = [node(number, limit=limit) for number, limit in enumerate(limits, 1)]
    live = LiveFigures()
    running: list[int] = []
    for begins in steps:
        if not begins:
            if running:
                live.end(running.pop(0))
            continue
        selection = select_node("m", nodes, live, STRATEGIES[strategy])
        free = [entry for entry in nodes if entry.limit == 0 or live.in_flight.get(entry.id, 0) < entry.limit]
        assert (selection is None) == (not free)
        if selection is not None:
            assert selection.node in free
            live.begin(selection.node)
            running.append(selection.node.id)
    for id in running:
        live.end(id)
    assert not live.in_flight


# --- the table -------------------------------------------------------------------------------------------------------


def table(**values: object) -> RoutingTable:
    nodes = [node(1), node(2), node(3, online=False), node(4, draining=True), node(5, enabled=False)]
    executable = [(1, "a"), (2, "a"), (2, "b"), (3, "c"), (4, "a"), (5, "a")]
    return RoutingTable.build(nodes, executable, **values)  # type: ignore[arg-type]


def test_holders_are_online_enabled_not_draining_and_not_excluded() -> None:
    assert [entry.id for entry in table().holders["a"]] == [1, 2]
    assert [entry.id for entry in table(excluded=[(1, "a")]).holders["a"]] == [2]
    assert "c" not in table().holders
    assert "c" in table().known


def test_taking_a_pair_out_leaves_the_nodes_other_models() -> None:
    after = table().without([(2, "a")])
    assert [entry.id for entry in after.holders["a"]] == [1]
    assert [entry.id for entry in after.holders["b"]] == [2]
    assert "b" not in after.without([(2, "b")]).holders


def test_names_match_exactly_and_an_alias_never_hides_a_model() -> None:
    with_aliases = table(aliases={"A": "a", "b": "a"})
    assert with_aliases.resolve("A") == "a"
    assert with_aliases.resolve("b") == "b"
    assert with_aliases.resolve("Nothing") == "Nothing"
    assert with_aliases.routable_names() == ["A", "a", "b"]
