"""The client of the hot path and answers to the byte: what is whole, what is broken, what is no HTTP."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from llmlb_site.lib.upstream.base import UpstreamAnswer
from llmlb_site.lib.upstream.client import PooledClient
from llmlb_site.lib.upstream.faults import BrokenFault, MalformedFault, TimeoutFault
from tests.routing.upstream_support import Listen, client, listen, read_all, saying, send

__all__ = ["client", "listen"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"hi"),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.0 200 OK\r\n\r\nold", b"old"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", b"hi"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"hi"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi and more that nobody asked for", b"hi"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", b"hi"),
    ],
)
async def test_every_way_to_end_a_body(client: PooledClient, listen: Listen, answer: bytes, expected: bytes) -> None:
    url = await listen(saying(answer))
    answered = await send(client, url)
    assert answered.status in (200, 204)
    assert await read_all(answered) == expected


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhi",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
    ],
)
async def test_a_body_that_stops_too_early_is_never_taken_for_whole(
    client: PooledClient, listen: Listen, answer: bytes
) -> None:
    url = await listen(saying(answer))
    with pytest.raises((BrokenFault, MalformedFault)):
        await read_all(await send(client, url))


async def test_a_head_without_end_is_cut_off(client: PooledClient, listen: Listen) -> None:
    url = await listen(saying(b"HTTP/1.1 200 OK\r\n" + b"X-Long: " + b"a" * 200_000, then_close=False))
    with pytest.raises(MalformedFault):
        await send(client, url)


async def test_what_comes_unasked_between_two_requests_ends_the_connection(
    client: PooledClient, listen: Listen
) -> None:
    good = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
    url = await listen(saying(good + b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstale", then_close=False))
    for _ in range(3):
        assert await read_all(await send(client, url)) == b"hi"


@pytest.mark.parametrize("status", [b"000", b"099", b"600", b"999"])
async def test_a_status_that_http_has_none_of(client: PooledClient, listen: Listen, status: bytes) -> None:
    url = await listen(saying(b"HTTP/1.1 %b Odd\r\nContent-Length: 2\r\n\r\nhi" % status, then_close=False))
    with pytest.raises(MalformedFault):
        await send(client, url, silence=2)


async def test_a_node_that_switches_protocols_is_at_fault(client: PooledClient, listen: Listen) -> None:
    switching = b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"
    url = await listen(saying(switching + b"PRI * HTTP/2.0\r\n\r\n", then_close=False))
    with pytest.raises(MalformedFault):
        await send(client, url, silence=2)


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 2\r\n\r\nhi", b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"]
)
async def test_a_node_that_offers_another_protocol_goes_on_in_this_one(
    client: PooledClient, listen: Listen, framing: bytes
) -> None:
    """As Apache does: `Upgrade: h2`, with a usual answer."""
    offering = b"HTTP/1.1 200 OK\r\nConnection: upgrade\r\nUpgrade: h2\r\n" + framing
    url = await listen(saying(offering, offering, then_close=False))
    for _ in range(2):
        assert await read_all(await send(client, url, silence=2)) == b"hi"


@pytest.mark.parametrize("end", ["silence", "close"])
async def test_what_we_break_off_is_never_taken_for_whole(client: PooledClient, listen: Listen, end: str) -> None:
    """Of an answer that the end of the connection ends, ours is none."""
    url = await listen(saying(b"HTTP/1.1 200 OK\r\n\r\nthe first half", then_close=False))
    answer = await send(client, url, silence=0.2 if end == "silence" else 5)
    assert await answer.read() == b"the first half"
    if end == "silence":
        with pytest.raises(TimeoutFault):
            await asyncio.wait_for(_until_closed(answer, client), 3)
    else:
        await client.aclose()
        with pytest.raises((BrokenFault, TimeoutFault)):
            await answer.read()


async def _until_closed(answer: UpstreamAnswer, client: PooledClient) -> None:
    with contextlib.suppress(TimeoutFault):
        await answer.read()
    await asyncio.sleep(0.05)
    await answer.read()
