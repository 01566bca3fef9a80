"""What the requests of one connection have to do with each other, with upgrades, and with a client that leaves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final

import pytest

from llmlb_site.serve.http_protocol import PIPELINED, UNREAD_BYTES
from tests.site.protocol_server import CLOSE, answering, ask, direct, echo, echoed, request, serving

SMUGGLED: Final = b"GET /smuggled HTTP/1.1\r\nHost: here\r\n\r\n"
LAST: Final = request("GET", "/last", b"", CLOSE)
WEBSOCKET: Final = (
    "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)  # fmt: skip


async def until(check: Callable[[], Any]) -> None:
    async with asyncio.timeout(5):
        while not check():
            await asyncio.sleep(0.005)


# --- upgrades ---------------------------------------------------------------------------------------------------------

UPGRADES: Final = {
    "h2c": ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AA"),
    "unknown": ("connection: upgrade", "upgrade: foo"),
    "a list": ("Connection: upgrade", "Upgrade: foo, websocket"),
    "with close": ("Connection: close, upgrade", "Upgrade: h2c"),
    "a WebSocket with a body": WEBSOCKET,
}
COUNTED: Final = b"Content-Length: %d\r\n\r\n%b" % (len(SMUGGLED), SMUGGLED)
CHUNKED: Final = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\nX-Trailer: 1\r\n\r\n" % (len(SMUGGLED), SMUGGLED)


@pytest.mark.parametrize("upgrade", UPGRADES)
@pytest.mark.parametrize("framed", [COUNTED, CHUNKED], ids=["counted", "chunked"])
@pytest.mark.parametrize("cut", ["whole", "after the head", "everywhere"])
async def test_an_upgrade_that_is_not_wanted_is_ignored_and_the_body_is_a_body(
    upgrade: str, framed: bytes, cut: str
) -> None:
    head = "\r\n".join(["POST /outer HTTP/1.1", "Host: here", *UPGRADES[upgrade], ""]).encode()
    data = head + framed
    if "close" not in upgrade:
        data += LAST
    end = data.index(b"\r\n\r\n") + 4
    cuts: list[int] = {"whole": [], "after the head": [end], "everywhere": list(range(1, len(data)))}[cut]
    async with serving(echo) as connect:
        reader, writer = await connect()
        for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True):
            writer.write(data[start:stop])
            await asyncio.sleep(0.02 if start == 0 else 0)
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
    last = [] if "close" in upgrade else [(b"/last", b"")]
    assert echoed(answer) == [(b"/outer", SMUGGLED), *last]
    assert b"HTTP/1.1 101" not in answer


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
async def test_an_upgrade_in_http_1_0_is_ignored(protocol: bytes) -> None:
    head = b"POST / HTTP/1.0\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: %b\r\n" % protocol
    async with serving(echo) as connect:
        answer = await ask(connect, head + COUNTED)
    assert echoed(answer) == [(b"/", SMUGGLED)]


async def test_requests_behind_an_upgrade_that_is_not_wanted_are_not_lost() -> None:
    def upgrading(number: int) -> bytes:
        return request("POST", f"/{number}", b"%d" % number, "Connection: upgrade", "Upgrade: foo")

    async with serving(echo) as connect:
        answer = await ask(connect, b"".join(map(upgrading, range(2000))) + LAST)
    assert echoed(answer) == [*((b"/%d" % number, b"%d" % number) for number in range(2000)), (b"/last", b"")]


async def test_an_application_is_not_told_of_an_upgrade_that_is_ignored() -> None:
    seen: list[tuple[bytes, bytes]] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        seen.extend(scope["headers"])
        await echo(scope, receive, send)

    async with serving(application) as connect:
        framing = b"Transfer-Encoding: chunked\r\nConnection: close, upgrade\r\n"
        fields = b"X-Odd: a:\tb\xff \r\nUpgrade: h2c\r\nX-Empty:\r\n\r\n"
        await ask(connect, b"POST / HTTP/1.1\r\nHost: here\r\n%b%b0\r\nX-Trailer: 1\r\n\r\n" % (framing, fields))
    names = [name for name, _value in seen]
    assert names == [b"host", b"transfer-encoding", b"connection", b"x-odd", b"x-empty"]
    assert dict(seen)[b"x-odd"].strip() == b"a:\tb\xff"


@pytest.mark.parametrize("target", [b"here:80", b"http://here/", b"/"])
async def test_nobody_is_given_a_tunnel(target: bytes) -> None:
    async with serving(echo) as connect:
        answer = await ask(connect, b"CONNECT %b HTTP/1.1\r\nHost: here\r\n\r\n%b" % (target, SMUGGLED))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("pause", [0, 0.02])
async def test_a_websocket_is_not_opened_in_the_middle_of_an_answer(pause: float) -> None:
    held = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        if scope["path"] == "/first":
            await asyncio.wait_for(held.wait(), 5)
        await echo(scope, receive, send)

    async with serving(application) as connect:
        reader, writer = await connect()
        writer.write(request("GET", "/first"))
        await asyncio.sleep(pause)
        writer.write(request("GET", "/socket", b"", *WEBSOCKET) + LAST)
        await asyncio.sleep(0.02)
        held.set()
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
    assert [path for path, _body in echoed(answer)] == [b"/first", b"/socket", b"/last"]


@pytest.mark.parametrize("wrong", ["X-Long: " + "y" * 10_000, "Sec-WebSocket-Key: another"])
async def test_a_handshake_that_cannot_be_read_is_refused(wrong: str) -> None:
    async with serving(echo) as connect:
        answer = await ask(connect, request("GET", "/socket", b"", *WEBSOCKET, wrong))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1


# --- pipelined requests -----------------------------------------------------------------------------------------------


async def test_who_pipelines_without_end_waits_for_answers() -> None:
    held = asyncio.Event()
    connections: set[Any] = set()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/first":
            await asyncio.wait_for(held.wait(), 5)
        await echo(scope, receive, send)

    paths = [f"/{number}" for number in range(PIPELINED + 5)]
    async with serving(application, connections=connections) as connect:
        reader, writer = await connect()
        writer.write(request("GET", "/first"))
        for path in paths:
            writer.write(request("GET", path))
            await asyncio.sleep(0.001)
        (connection,) = connections
        await until(lambda: connection.flow.read_paused)
        held.set()
        writer.write(LAST)
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
    assert [path.decode() for path, _body in echoed(answer)] == ["/first", *paths, "/last"]


@pytest.mark.parametrize("pipelined", [[b"nonsense\r\n\r\n"], [b"GET / HTTP/1.1\r\nX: ", b"y" * 70_000, b"y" * 70_000]])
async def test_a_malformed_request_does_not_speak_into_the_answer_before(pipelined: list[bytes]) -> None:
    gone = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        direct(scope).on_hang_up(gone.set)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        await asyncio.wait_for(gone.wait(), 5)

    async with serving(application) as connect:
        reader, writer = await connect()
        writer.write(request())
        answer = await asyncio.wait_for(reader.readuntil(b"begun\r\n"), 5)
        with contextlib.suppress(ConnectionError):
            for piece in pipelined:
                writer.write(piece)
                await asyncio.sleep(0.02)
            answer += await asyncio.wait_for(reader.read(), 5)
        writer.close()
    assert answer.count(b"HTTP/1.1") == 1
    assert answer.endswith(b"5\r\nbegun\r\n")


async def test_half_a_request_may_wait_for_the_answer_before() -> None:
    """As the body does that is sent when it is asked for, and nobody asks before it is its turn."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/first":
            await asyncio.sleep(1)
        await echo(scope, receive, send)

    async with serving(application, client_seconds=0.3) as connect:
        reader, writer = await connect()
        second = request("POST", "/second", b"", "Expect: 100-continue", CLOSE).replace(b"Length: 0", b"Length: 4")
        writer.write(request("GET", "/first") + second)
        async with asyncio.timeout(5):
            answer = await reader.readuntil(b"100 Continue\r\n\r\n")
            writer.write(b"body")
            answer += await reader.read()
        writer.close()
    assert echoed(answer) == [(b"/first", b""), (b"/second", b"body")]


# --- clients that leave -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pause", [0, 0.02])
@pytest.mark.parametrize("behind", [1, PIPELINED - 1])
async def test_a_client_that_leaves_is_noticed_behind_pipelined_requests(pause: float, behind: int) -> None:
    began: list[str] = []
    gone = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        began.append(scope["path"])
        direct(scope).on_hang_up(gone.set)
        await asyncio.wait_for(gone.wait(), 5)

    async with serving(application) as connect:
        _reader, writer = await connect()
        writer.write(request("GET", "/running"))
        await asyncio.sleep(pause)
        for _ in range(behind):
            writer.write(request("POST", "/waiting", b"body"))
        await asyncio.sleep(0.05)
        writer.close()
        await asyncio.wait_for(gone.wait(), 3)
    assert began == ["/running"]


async def test_a_client_that_leaves_is_noticed_however_much_of_its_body_was_unread() -> None:
    listening, gone = asyncio.Event(), asyncio.Event()
    connections: set[Any] = set()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        (connection,) = connections
        await until(lambda: not connection.cycle.more_body)
        message = await receive()
        assert len(message["body"]) == UNREAD_BYTES + 1
        assert not message["more_body"]
        direct(scope).on_hang_up(gone.set)
        listening.set()
        await asyncio.wait_for(gone.wait(), 5)

    async with serving(application, connections=connections) as connect:
        _reader, writer = await connect()
        writer.write(request("POST", "/", b"x" * (UNREAD_BYTES + 1)))
        await asyncio.wait_for(listening.wait(), 5)
        writer.close()
        await asyncio.wait_for(gone.wait(), 3)


# --- connections at rest ----------------------------------------------------------------------------------------------


async def refuse_early(scope: Any, receive: Any, send: Any) -> None:
    direct(scope).answer(401, [(b"content-length", b"2")], b"no")


async def test_a_connection_whose_request_was_answered_early_is_closed_when_it_is_idle() -> None:
    async with serving(refuse_early, keep_alive=1) as connect:
        reader, writer = await connect()
        head = request("POST", "/").replace(b"Length: 0", b"Length: 4")
        async with asyncio.timeout(10):
            writer.write(head)
            assert (await reader.readuntil(b"no")).startswith(b"HTTP/1.1 401 ")
            writer.write(b"body")
            assert await reader.read() == b""
        writer.close()


async def test_a_body_may_go_on_after_an_early_answer() -> None:
    async with serving(refuse_early, keep_alive=1) as connect:
        reader, writer = await connect()
        head = request("POST", "/").replace(b"Length: 0", b"Length: 4")
        async with asyncio.timeout(10):
            writer.write(head)
            await reader.readuntil(b"no")
            for byte in (b"b", b"o", b"d"):
                await asyncio.sleep(0.5)
                writer.write(byte)
            writer.write(b"y" + request())
            assert (await reader.readuntil(b"no")).startswith(b"HTTP/1.1 401 ")
        writer.close()


async def test_an_empty_line_after_a_request_does_not_keep_its_connection() -> None:
    async with serving(answering(b"ok"), keep_alive=1) as connect:
        reader, writer = await connect()
        async with asyncio.timeout(10):
            writer.write(request())
            await reader.readuntil(b"0\r\n\r\n")
            writer.write(b"\r\n")
            assert await reader.read() == b""
        writer.close()
