"""Who is next: round-robin over the keys (SPEC-da253baa)."""

from __future__ import annotations

from collections import Counter
from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from routing.core.queue import FairQueue, Waiting

A, B, C = 1, 2, 3


def enter(queue: FairQueue[str], served: list[int], *keys: int, model: str = "m") -> list[Waiting[str]]:
    places = []
    for key in keys:
        waiting: Waiting[str] = Waiting(key, model, partial(_note, served, key))
        queue.push(waiting)
        places.append(waiting)
    return places


def _note(served: list[int], key: int, grant: str) -> None:
    served.append(key)


def serve_one(queue: FairQueue[str]) -> None:
    granted: list[str] = []

    def choose(waiting: Waiting[str]) -> str | None:
        if granted:
            return None
        granted.append("slot")
        return "slot"

    queue.serve(choose)


def test_a_five_b_two_is_served_a_b_a_b_a_a_a() -> None:
    queue: FairQueue[str] = FairQueue()
    served: list[int] = []
    enter(queue, served, A, A, A, A, A, B, B)
    while len(queue):
        serve_one(queue)
    assert served == [A, B, A, B, A, A, A]


def test_a_key_that_was_served_without_waiting_has_had_its_turn() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.took_turn(A)
    served: list[int] = [A]
    enter(queue, served, A, A, A, A, B, B)
    while len(queue):
        serve_one(queue)
    assert served == [A, B, A, B, A, A, A]


def test_whose_turn_was_long_ago_is_next_however_often_others_had_theirs() -> None:
    queue: FairQueue[str] = FairQueue()
    for key in (B, A, A, B, B, A):
        queue.took_turn(key)
    served: list[int] = []
    enter(queue, served, A, B)
    while len(queue):
        serve_one(queue)
    assert served == [B, A]


def test_one_model_without_a_node_holds_up_no_other() -> None:
    queue: FairQueue[str] = FairQueue()
    served: list[int] = []
    enter(queue, served, A, model="busy")
    enter(queue, served, A, B, model="free")
    assert queue.serve(lambda waiting: "slot" if waiting.model == "free" else None) == 2
    assert served == [A, B]
    assert len(queue) == 1


def test_leaving_is_leaving() -> None:
    queue: FairQueue[str] = FairQueue()
    served: list[int] = []
    first, _second = enter(queue, served, A, A)
    assert queue.remove(first)
    assert not queue.remove(first)
    serve_one(queue)
    assert served == [A]
    assert len(queue) == 0


@given(st.lists(st.sampled_from([A, B, C]), max_size=40), st.data())
def test_no_key_is_ever_two_turns_ahead_of_one_that_waits(keys: list[int], data: st.DataObject) -> None:
    queue: FairQueue[str] = FairQueue()
    served: list[int] = []
    enter(queue, served, *keys)
    left = Counter(keys)
    while len(queue):
        before = len(served)
        serve_one(queue)
        assert len(served) == before + 1
        left[served[-1]] -= 1
        turns = Counter(served)
        for waiting in (key for key, count in left.items() if count):
            assert turns[served[-1]] - turns[waiting] <= 1
    assert Counter(served) == Counter(keys)
