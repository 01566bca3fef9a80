"""Which node is chosen: strategies, limits, weights, turns."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.core.affinity import affinity_of
from routing.core.select import (
    MANY_HOLDERS,
    PREFIX_LOAD_BOUND,
    SLOW_START_SECONDS,
    STRATEGIES,
    LiveFigures,
    Strategy,
    select_node,
)
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


# --- metrics and prefix ----------------------------------------------------------------------------------------------


def test_a_node_whose_gpu_is_busy_or_full_is_avoided() -> None:
    busy, full, fit = node(1, gpu_usage=90.0), node(2, gpu_memory=95.0), node(3, gpu_usage=70.0, gpu_memory=80.0)
    assert serve([busy, full, fit], STRATEGIES["metrics"], 10) == {3: 10}


def test_where_every_gpu_is_busy_or_none_tells_requests_in_flight_decide() -> None:
    assert serve([node(1, gpu_usage=90.0), node(2, gpu_usage=85.0)], STRATEGIES["metrics"], 10) == {1: 5, 2: 5}
    assert serve([node(1), node(2)], STRATEGIES["metrics"], 10, keep=True) == {1: 5, 2: 5}


def test_of_equally_busy_nodes_the_one_with_the_highest_score_is_asked() -> None:
    """SPEC-589f2df1: fewest active, then capability score, then in turn."""
    nodes = [node(1, gpu_score=9170), node(2, gpu_score=9850), node(3, gpu_score=9850)]
    assert serve(nodes, STRATEGIES["metrics"], 10) == {2: 5, 3: 5}
    assert serve(nodes, STRATEGIES["metrics"], 9, keep=True) == {1: 3, 2: 3, 3: 3}
    assert serve([node(1), node(2, gpu_score=5, gpu_usage=95.0)], STRATEGIES["metrics"], 4) == {1: 4}


def homes(nodes: list[NodeEntry], affinities: range, live: LiveFigures | None = None) -> dict[int, int]:
    """Where each affinity goes on idle nodes."""
    chosen = {}
    for number in affinities:
        selection = select_node("m", nodes, live or LiveFigures(), STRATEGIES["prefix"], (), crc32(b"%d" % number))
        assert selection is not None
        chosen[number] = selection.node.id
    return chosen


@pytest.mark.parametrize("count", [4, 200])
def test_a_node_that_leaves_moves_few_prompts_but_its_own(count: int) -> None:
    nodes = [node(number) for number in range(1, count + 1)]
    before = homes(nodes, range(1000))
    assert before == homes(nodes, range(1000)), "the same prompt goes to the same node"
    after = homes(nodes[:1] + nodes[2:], range(1000))
    moved = [number for number in before if before[number] != after[number] and before[number] != 2]
    assert len(moved) <= (0 if count <= MANY_HOLDERS else 50)


def test_prompts_are_spread_by_weight() -> None:
    spread = Counter(homes([node(1), node(2), node(3, weight=2)], range(4000)).values())
    assert spread[1] == pytest.approx(1000, rel=0.15)
    assert spread[3] == pytest.approx(2000, rel=0.15)


@given(st.lists(st.integers(1, 2**32 - 1), min_size=1, max_size=60), st.integers(2, 6))
def test_a_prompt_that_all_ask_for_does_not_overload_its_node(affinities: list[int], count: int) -> None:
    nodes = [node(number) for number in range(1, count + 1)]
    live = LiveFigures()
    for asked, affinity in enumerate([affinities[0]] * 20 + affinities, 1):
        selection = select_node("m", nodes, live, STRATEGIES["prefix"], (), affinity)
        assert selection is not None
        live.begin(selection.node)
        assert live.in_flight[selection.node.id] < PREFIX_LOAD_BOUND * asked / count + 1


def body_of(*said: str) -> bytes:
    roles = ("system", "user", "assistant", "user")
    messages = [{"role": role, "content": text} for role, text in zip(roles, said, strict=False)]
    return json.dumps({"model": "m", "messages": messages, "stream": True}).encode()


def test_every_turn_of_a_conversation_has_one_affinity_and_another_conversation_another() -> None:
    first = affinity_of(body_of("Be kind.", "Hello {you}"))
    assert first == affinity_of(body_of("Be kind.", "Hello {you}", "Hi!", "How are you?"))
    assert first != affinity_of(body_of("Be kind.", "Hello there"))
    assert affinity_of(b'{"model": "m"}') == 0
    assert affinity_of(b'{"model": "m", "prompt": "Once"}') != affinity_of(b'{"model": "m", "prompt": "Twice"}')


# --- a node that came back -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["least_busy", "round_robin"])
@pytest.mark.parametrize("keep", [False, True])
def test_a_node_that_came_back_is_given_its_share_little_by_little(strategy: str, keep: bool) -> None:
    steady, away = node(1), node(2, online=False)
    back = replace(away, online=True)
    now = [0.0]
    live = LiveFigures(clock=lambda: now[0])
    pairs = [(1, "m"), (2, "m")]
    live.follow(RoutingTable.build([steady, away], pairs), RoutingTable.build([steady, back], pairs))
    shares = []
    for now[0] in (0.0, SLOW_START_SECONDS / 2, SLOW_START_SECONDS):
        chosen = Counter[int]()
        for _ in range(110):
            selection = select_node("m", [steady, back], live, STRATEGIES[strategy])
            assert selection is not None
            live.begin(selection.node)
            chosen[selection.node.id] += 1
            if not keep:
                live.end(selection.node.id)
        shares.append(chosen[2])
        live.in_flight.clear()
        live.turn.clear()
    assert shares == pytest.approx([10, 39, 55], abs=2)
    assert not live.warming


def test_a_model_that_is_included_again_eases_its_node_in_and_a_new_node_is_not() -> None:
    live = LiveFigures()
    before = RoutingTable.build([node(1)], [(1, "m")], [(1, "m")])
    after = RoutingTable.build([node(1), node(2)], [(1, "m"), (2, "m")])
    live.follow(before, after)
    assert set(live.warming) == {1}
    short = after.without([(2, "m")])
    live.follow(after, short)
    live.follow(short, after)
    assert set(live.warming) == {1}, "the exclusion was taken back at once"
    live.follow(after, RoutingTable.build([node(1, online=False)], []))
    assert not live.warming, "gone again"


def test_many_holders_are_used_evenly() -> None:
    nodes = [node(number) for number in range(1000)]
    chosen = serve(nodes, STRATEGIES["round_robin"], 4000)
    assert len(chosen) == 1000
    assert max(chosen.values()) <= 6
    busy = [replace(each, limit=1) for each in nodes]
    live = LiveFigures(in_flight={each.id: 1 for each in busy[:-1]})
    selection = select_node("m", busy, live, STRATEGIES["least_busy"])
    assert selection is not None
    assert selection.node.id == 999, "the one that is free is found"


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
