"""Our HTTP/1.1 protocol: what ASGI promises an application, and what goes over the wire."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from llmlb_site.serve.cycle import WORTH_READING_BYTES, Cycle
from tests.site.protocol_server import CLOSE, answering, ask, direct, echo, echoed, request, serving


async def test_pieces_without_a_length_are_chunked() -> None:
    async with serving(answering(b"one", b"two", b"")) as connect:
        answer = await ask(connect, request("GET", "/", b"", CLOSE))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head
    assert b"connection: close" in head
    assert body == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"


async def test_http_1_0_has_no_chunks_and_its_body_ends_with_the_connection() -> None:
    async with serving(answering(b"one", b"two", b"")) as connect:
        answer = await ask(connect, b"GET / HTTP/1.0\r\nHost: here\r\n\r\n")
    assert b"chunked" not in answer
    assert answer.endswith(b"\r\n\r\nonetwo")


async def test_a_body_that_dribbles_in_wakes_nobody_until_there_is_enough_of_it() -> None:
    read: list[int] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            message = await receive()
            read.append(len(message["body"]))
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"%d" % sum(read)})

    async with serving(application) as connect:
        reader, writer = await connect()
        size = WORTH_READING_BYTES + 20
        writer.write(request("POST", "/", b"x" * size, CLOSE)[:-size])
        for piece in (b"x",) * 10 + (b"x" * WORTH_READING_BYTES,) + (b"x",) * 10:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.005)
        async with asyncio.timeout(5):
            answer = await reader.read()
        writer.close()
    assert answer.endswith(b"\r\n%d\r\n0\r\n\r\n" % size)
    assert len(read) <= 3, "once for what was enough, and once for the end"
    assert read[0] > WORTH_READING_BYTES


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
async def test_no_body_where_none_may_be(method: str, status: int) -> None:
    headers = ((b"content-length", b"5"),) if status != 204 else ()
    pieces = (b"hello",) if status == 200 else (b"",)
    async with serving(answering(*pieces, status=status, headers=headers)) as connect:
        answer = await ask(connect, request(method, "/", b"", CLOSE))
    assert answer.endswith(b"\r\n\r\n")
    assert b"hello" not in answer
    assert b"chunked" not in answer


async def test_pipelined_requests_are_answered_one_after_the_other() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        await asyncio.sleep(0.02 if body == b"1" else 0)
        await answering(scope["path"].encode() + b" " + body)(scope, lambda: asyncio.sleep(0, {}), send)

    async with serving(application) as connect:
        asked = request("POST", "/a", b"1") + request("POST", "/b", b"2") + request("POST", "/c", b"3", CLOSE)
        answer = await ask(connect, asked)
    assert [answer.index(text) for text in (b"/a 1", b"/b 2", b"/c 3")] == sorted(
        answer.index(text) for text in (b"/a 1", b"/b 2", b"/c 3")
    )
    assert answer.count(b"HTTP/1.1 200") == 3


@pytest.mark.parametrize(
    "header", [(b"x-bad", b"one\r\nset-cookie: stolen"), (b"x bad", b"1"), (b"x-bad:", b"1"), (b"", b"1")]
)
async def test_a_header_cannot_end_the_head(header: tuple[bytes, bytes]) -> None:
    async with serving(answering(b"secret", headers=(header,))) as connect:
        answer = await ask(connect, request())
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"stolen" not in answer
    assert b"secret" not in answer


@pytest.mark.parametrize("pieces", [(b"too", b"short"), (b"much ", b"too ", b"long for it")])
async def test_an_answer_of_another_length_than_it_says_is_broken_off(pieces: tuple[bytes, ...]) -> None:
    async with serving(answering(*pieces, headers=((b"content-length", b"10"),))) as connect:
        answer = await ask(connect, request())
    assert len(answer.partition(b"\r\n\r\n")[2]) != 10, "the client can tell that it is not whole"


async def test_what_fails_before_it_answers_is_a_500_and_after_that_a_broken_connection() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/later":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        raise ValueError("a secret")

    async with serving(application) as connect:
        assert (await ask(connect, request())).startswith(b"HTTP/1.1 500 ")
        answer = await ask(connect, request("GET", "/later"))
    assert answer.endswith(b"5\r\nbegun\r\n")
    assert b"secret" not in answer


async def test_a_status_that_is_none_is_a_500() -> None:
    async with serving(answering(b"no", status=999)) as connect:
        answer = await ask(connect, request())
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert answer.count(b"HTTP/1.1") == 1


async def test_a_head_that_comes_in_one_read_may_be_no_larger_than_one_in_many() -> None:
    async with serving(echo) as connect:
        answer = await ask(connect, request("GET", "/", b"", "X-Long: " + "y" * 90_000))
        assert answer.startswith(b"HTTP/1.1 431 ")
        answer = await ask(connect, request("POST", "/", b"x" * 90_000, "X-Long: " + "y" * 60_000, CLOSE))
        assert echoed(answer) == [(b"/", b"x" * 90_000)], "a body is no head"


async def test_http_1_0_knows_no_interim_answers() -> None:
    async with serving(echo) as connect:
        answer = await ask(connect, b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nbody")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert echoed(answer) == [(b"/", b"body")]


async def test_the_body_is_asked_for_only_when_it_is_wanted() -> None:
    async with serving(answering(b"ok")) as connect:
        reader, writer = await connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: here\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        async with asyncio.timeout(5):
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"body")
            assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_an_idle_connection_is_closed_and_a_busy_one_is_not() -> None:
    async with serving(answering(b"ok"), keep_alive=1) as connect:
        reader, writer = await connect()
        async with asyncio.timeout(10):
            for _ in range(4):
                writer.write(request())
                await reader.readuntil(b"0\r\n\r\n")
                await asyncio.sleep(0.4)
            began = asyncio.get_running_loop().time()
            assert await reader.read() == b""
        assert asyncio.get_running_loop().time() - began < 5
        writer.close()


async def test_a_client_that_leaves_is_told_by_a_call() -> None:
    told: list[bool] = []
    gone = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        told.append(direct(scope).on_hang_up(gone.set))
        await asyncio.wait_for(gone.wait(), 5)
        told.append(direct(scope).on_hang_up(None))
        assert (await receive())["type"] == "http.disconnect"
        told.append(True)

    async with serving(application) as connect:
        _reader, writer = await connect()
        writer.write(request())
        await asyncio.sleep(0.05)
        writer.close()
        async with asyncio.timeout(5):
            while len(told) < 3:
                await asyncio.sleep(0.01)
    assert told == [False, True, True]


async def test_who_sends_without_waiting_is_told_that_the_client_does_not_keep_up() -> None:
    kept_up: list[bool] = []
    piece = b"x" * 100_000

    async def application(scope: Any, receive: Any, send: Any) -> None:
        direct(scope).start(200, [])
        while len(kept_up) < 1000 and (not kept_up or kept_up[-1]):
            kept_up.append(direct(scope).piece(piece))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async with serving(application) as connect:
        reader, writer = await connect()
        writer.write(request("GET", "/", b"", CLOSE))
        await asyncio.sleep(0.1)
        async with asyncio.timeout(10):
            answer = await reader.read()
        writer.close()
    assert kept_up[-1] is False
    assert answer.count(b"x") == len(kept_up) * len(piece), "nothing is lost"


async def test_a_whole_answer_goes_out_at_once_and_keeps_the_connection() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        direct(scope).answer(200, [(b"content-length", b"2")], b"ok")

    async with serving(application) as connect:
        reader, writer = await connect()
        for _ in range(2):
            writer.write(request())
            assert (await asyncio.wait_for(reader.readuntil(b"ok"), 5)).startswith(
                b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n"
            )
        writer.close()


async def test_what_is_sent_directly_to_a_client_that_has_gone_is_dropped() -> None:
    over = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        gone = asyncio.Event()
        direct(scope).on_hang_up(gone.set)
        await asyncio.wait_for(gone.wait(), 5)
        direct(scope).start(200, [])
        assert direct(scope).piece(b"x") is True
        direct(scope).answer(200, [(b"content-length", b"0")], b"")
        over.set()

    async with serving(application) as connect:
        _reader, writer = await connect()
        writer.write(request())
        await asyncio.sleep(0.05)
        writer.close()
        await asyncio.wait_for(over.wait(), 5)


async def test_a_request_leaves_nothing_for_the_garbage_collector() -> None:
    async with serving(answering(b"ok")) as connect:
        reader, writer = await connect()
        gc.collect()
        gc.disable()
        try:
            for _ in range(20):
                writer.write(request("POST", "/", b"body"))
                await reader.readuntil(b"0\r\n\r\n")
            cycles = [
                thing for thing in gc.get_objects() if type(thing) is Cycle
            ]  # not isinstance: it wakes lazy objects
        finally:
            gc.enable()
        writer.close()
    assert len(cycles) <= 1, "the connection's last one"
