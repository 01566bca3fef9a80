"""What is asked of every gateway is neither easier to keep than what people ask, nor another thing in each run."""

from __future__ import annotations

import json
import random
import zlib

import pytest

from benchmarks.side_by_side import bodies
from routing.protocols.vision import check_pictures


@pytest.mark.parametrize(("name", "least", "size"), [("1 KB", 0.45, 1e3), ("100 KB", 0.35, 1e5), ("5 MB", 0.74, 5e6)])
def test_bodies_are_as_long_as_they_say_and_compress_as_badly_as_what_they_stand_for(
    name: str, least: float, size: float
) -> None:
    body = bodies.all_bodies()[name]
    assert len(body) == pytest.approx(size, rel=0.1)
    assert len(zlib.compress(body)) >= least * len(body)
    assert json.loads(body)["model"] == "bench"


def test_the_picture_is_one_to_a_gateway_that_looks_at_it() -> None:
    asked = json.loads(bodies.all_bodies()["5 MB"])
    assert check_pictures(asked["messages"], "messages", 1)


def test_bodies_are_the_same_in_every_run() -> None:
    first = dict(bodies.all_bodies())
    bodies.all_bodies.cache_clear()
    assert first == bodies.all_bodies()


def test_prose_is_as_long_as_asked_for_and_never_the_same_twice() -> None:
    dice = random.Random(1)
    texts = [bodies.prose(1000, dice) for _ in range(3)]
    assert [len(text) for text in texts] == [1000] * 3
    assert len(set(texts)) == 3
