"""What the history keeps of an answer that comes in pieces: all of it, up to its cap, in little memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.fake_node import Behaviour
from routing.gateway import kept, replies
from routing.gateway.exchange import Exchange, Message
from tests.routing.conftest import MakeFleet

SIZES = st.one_of(st.integers(0, 300), st.integers(0, 2 * kept.BLOCK_BYTES), st.just(kept.CAPTURE_BYTES))


async def _receive() -> Message:
    raise AssertionError("no request is read here")


async def _send(message: Message) -> None:
    raise AssertionError("nothing is sent here")


def answered(pieces: Iterable[bytes]) -> Exchange:
    scope = {"method": "POST", "path": "/v1/chat/completions", "headers": []}
    exchange = Exchange(scope, _receive, _send, "127.0.0.1")
    for piece in pieces:
        replies.sent(exchange, piece)
    return exchange


def event(number: int) -> bytes:
    return b'data: {"id":"1","choices":[{"delta":{"content":" word %d"},"finish_reason":null}]}\n\n' % number


@given(sizes=st.lists(SIZES, max_size=60))
def test_an_answer_in_pieces_is_kept_as_it_was_sent(sizes: list[int]) -> None:
    text = b" ".join(b"%d" % number for number in range(sum(sizes) // 2 + 1))
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    pieces = [text[start : start + size] for start, size in zip(starts, sizes, strict=True)]
    whole = b"".join(pieces)
    expected = whole[: kept.CAPTURE_BYTES], len(whole) > kept.CAPTURE_BYTES
    assert kept.of_answer(answered(pieces)) == expected


def test_one_piece_larger_than_the_cap_is_cut() -> None:
    assert kept.of_answer(answered([b" " * (kept.CAPTURE_BYTES + 1)])) == (b" " * kept.CAPTURE_BYTES, True)


def test_a_picture_in_one_piece_is_noted_by_its_length() -> None:
    picture = b'{"b64_json":"%b"}' % (b"A" * 2 * kept.CAPTURE_BYTES)
    assert kept.of_answer(answered([picture])) == (b'{"b64_json":"[%d characters]"}' % (2 * kept.CAPTURE_BYTES), False)


def test_a_long_stream_under_way_takes_little_memory() -> None:
    tracemalloc.start()
    try:
        exchange = answered(event(number) for number in range(2500))
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 200_000 < exchange.bytes_out < kept.CAPTURE_BYTES
    assert used < 60_000, "half a block in pieces, and the rest compressed"


@pytest.mark.parametrize("mode", ["none", "plain"])
async def test_an_answer_is_captured_where_bodies_are_kept(make_fleet: MakeFleet, mode: str) -> None:
    fleet = await make_fleet(history_payloads=mode)
    await fleet.add("model-a", behaviour=Behaviour(chunks=400))
    response = await fleet.post(stream=True)
    (entry,) = await fleet.settled()
    assert len(response.content) > 2 * kept.BLOCK_BYTES
    assert entry.response_body == (b"" if mode == "none" else response.content)
