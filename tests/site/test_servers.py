"""Both servers leave in the same way, and bound what a client may make them hold."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from llmlb_site.serve.lifecycle import Leaving, Lifecycle
from tests.support.product import ROOT, free_port, wait_until
from tests.support.small_app import BODY_LIMIT_BYTES, LINES

BOTH = pytest.mark.parametrize("server", ["uvicorn", "daphne"])


class Running:
    """A server with the small application."""

    def __init__(self, server: str, drain_seconds: float, client_seconds: float) -> None:
        self.port = free_port()
        command = [sys.executable, "-W", "error::DeprecationWarning", "-m", "tests.support.small_app"]
        self.process = subprocess.Popen(
            [*command, server, str(self.port), str(drain_seconds), str(client_seconds)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        wait_until(lambda: "listening" in self.lines, seconds=20, what="the server listens")

    def get(self, path: str, **options: Any) -> httpx.Response:
        with httpx.Client(trust_env=False, timeout=20) as client:
            return client.get(f"http://127.0.0.1:{self.port}{path}", **options)

    def end(self) -> int:
        code = self.process.wait(20)
        self._reader.join(5)
        return code

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout:
            self.lines.extend(line.strip() for line in iter(self.process.stdout.readline, ""))


Serve = Callable[..., Running]


@pytest.fixture
def serve() -> Iterator[Serve]:
    started: list[Running] = []

    def start(server: str, *, drain_seconds: float = 10, client_seconds: float = 30) -> Running:
        started.append(Running(server, drain_seconds, client_seconds))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.end()


class Stream(threading.Thread):
    """A client that reads a stream to its end."""

    def __init__(self, server: Running) -> None:
        super().__init__(daemon=True)
        self.server = server
        self.text = ""
        self.error: httpx.HTTPError | None = None
        self.start()
        wait_until(lambda: self.text, seconds=5, what="the stream has begun")

    def run(self) -> None:
        try:
            with httpx.stream("GET", f"http://127.0.0.1:{self.server.port}/stream", trust_env=False) as response:
                for part in response.iter_text():
                    self.text += part
        except httpx.HTTPError as error:
            self.error = error


@BOTH
def test_a_running_stream_finishes_after_sigterm(serve: Serve, server: str) -> None:
    running = serve(server)
    stream = Stream(running)
    running.process.send_signal(signal.SIGTERM)
    wait_until(lambda: running.get("/readyz").status_code == 503, seconds=0.5, what="not ready, and says so")
    wait_until(lambda: not accepts(running.port), seconds=5, what="the listener is closed")
    assert stream.is_alive()
    stream.join(10)
    assert stream.error is None
    assert stream.text.count("line") == LINES
    assert "end" in stream.text
    assert running.end() == 0
    stopped = "lifespan shutdown" if server == "uvicorn" else "stopped"
    assert running.lines.index("worker stopped") < running.lines.index(stopped) < running.lines.index("gone")


@BOTH
def test_what_runs_longer_than_the_drain_time_is_cut(serve: Serve, server: str) -> None:
    running = serve(server, drain_seconds=0.2)
    stream = Stream(running)
    running.process.send_signal(signal.SIGTERM)
    assert running.end() == 0
    stream.join(5)
    assert "end" not in stream.text
    assert "stream cut" in running.lines


@BOTH
def test_ctrl_c_twice_ends_it_at_once(serve: Serve, server: str) -> None:
    running = serve(server, drain_seconds=30)
    stream = Stream(running)
    began = time.monotonic()
    running.process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    running.process.send_signal(signal.SIGINT)
    assert running.end() == 0
    assert time.monotonic() - began < 1.5, "the stream alone would have taken 2 s"
    stream.join(5)
    assert "end" not in stream.text


def test_who_was_let_in_last_is_answered(serve: Serve) -> None:
    running = serve("uvicorn")
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as client:
        running.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not accepts(running.port), seconds=5, what="the listener is closed")
        client.sendall(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 503 ")
    assert running.end() == 0


@BOTH
def test_a_second_sigterm_cuts_nothing(serve: Serve, server: str) -> None:
    """systemd tells every process of a unit, and then their parent passes it on to those that it started."""
    running = serve(server)
    stream = Stream(running)
    running.process.send_signal(signal.SIGTERM)
    wait_until(lambda: running.get("/readyz").status_code == 503, seconds=0.5, what="not ready, and says so")
    running.process.send_signal(signal.SIGTERM)
    assert running.end() == 0
    stream.join(5)
    assert "end" in stream.text


@pytest.mark.parametrize(
    ("number", "drain_seconds", "after"),
    [(signal.SIGTERM, 30, (3, 4, 30)), (signal.SIGTERM, 2, (2, 2, 2)), (signal.SIGINT, 30, (0, 0, 30))],
)
def test_the_lame_duck_is_part_of_the_drain_time(
    monkeypatch: pytest.MonkeyPatch, number: int, drain_seconds: float, after: tuple[float, float, float]
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)

    def nothing() -> None: ...

    lifecycle = Lifecycle(nothing, nothing, nothing, drain_seconds=drain_seconds, lame_duck_seconds=3)
    leaving = Leaving.after(number, lifecycle)
    assert (leaving.closes_at, leaving.hangs_up_at, leaving.cuts_at) == after


@BOTH
def test_an_idle_server_stops_quickly(serve: Serve, server: str) -> None:
    running = serve(server)
    with httpx.Client(trust_env=False) as client:  # holds an idle connection
        assert client.get(f"http://127.0.0.1:{running.port}/readyz").status_code == 200
        began = time.monotonic()
        running.process.send_signal(signal.SIGINT)
        assert running.end() == 0
    assert time.monotonic() - began < 3


def test_uvicorn_does_not_sleep_through_a_signal(serve: Serve) -> None:
    running = serve("uvicorn")
    began = time.monotonic()
    running.process.send_signal(signal.SIGINT)
    assert running.end() == 0
    assert time.monotonic() - began < 0.6  # it wakes by itself a second after it began to listen


@BOTH
async def test_a_websocket_is_told_that_the_service_restarts(serve: Serve, server: str) -> None:
    running = await asyncio.to_thread(serve, server)
    async with connect(f"ws://127.0.0.1:{running.port}/", proxy=None) as socket_:
        running.process.send_signal(signal.SIGTERM)
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(socket_.recv(), 5)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
    assert await asyncio.to_thread(running.end) == 0


@BOTH
def test_responses_while_draining_close_their_connection(serve: Serve, server: str) -> None:
    running = serve(server)
    with httpx.Client(trust_env=False) as client:
        url = f"http://127.0.0.1:{running.port}/readyz"
        assert "close" not in client.get(url).headers.get("connection", "")
        running.process.send_signal(signal.SIGTERM)
        while (answer := client.get(url)).status_code == 200:
            time.sleep(0.02)
        assert answer.headers["connection"].lower() == "close"


@BOTH
@pytest.mark.parametrize("way", ["returns", "fails"])
def test_an_answer_that_the_application_leaves_without_its_end_is_broken_off(
    serve: Serve, server: str, way: str
) -> None:
    running = serve(server)
    for _ in range(2):
        with pytest.raises(httpx.RemoteProtocolError):
            running.get(f"/part?{way}", timeout=5)
    assert running.get("/sent").status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_daphne_refuses_a_body_over_the_limit(serve: Serve, chunked: bool) -> None:
    running = serve("daphne")
    body = b"x" * (BODY_LIMIT_BYTES + 1)
    framing = (
        b"transfer-encoding: chunked\r\n\r\n%x\r\n" % len(body)
        if chunked
        else b"content-length: %d\r\n\r\n" % len(body)
    )
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as client:
        client.sendall(b"POST /stream HTTP/1.1\r\nhost: x\r\n" + framing + body[: BODY_LIMIT_BYTES // 2])
        if chunked:
            client.sendall(body[BODY_LIMIT_BYTES // 2 :])
        answer = client.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"request_too_large" in answer


def test_daphne_ignores_a_root_path_that_a_client_sends(serve: Serve) -> None:
    running = serve("daphne")
    assert running.get("/root", headers={"Daphne-Root-Path": "/evil"}).text == ""


@BOTH
def test_a_reader_who_does_not_read_stops_the_writer(serve: Serve, server: str) -> None:
    running = serve(server)
    with socket.create_connection(("127.0.0.1", running.port)) as reader:
        reader.sendall(b"GET /flood HTTP/1.1\r\nhost: x\r\n\r\n")
        assert reader.recv(1024)
        time.sleep(0.5)
        sent = int(running.get("/sent").text)
        time.sleep(0.3)
        assert int(running.get("/sent").text) == sent < 32 * 1024 * 1024


def test_a_head_without_an_end_is_refused(serve: Serve) -> None:
    running = serve("uvicorn")
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as client:
        client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nx-long: ")
        answer = b""
        for _ in range(40):
            try:
                client.sendall(b"y" * 4096)
                time.sleep(0.005)
            except OSError:
                break
        answer = client.recv(4096)
    assert answer.startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("parts", [[60_000, 60_000], [40_000, 40_000, 10]])
def test_a_head_that_is_too_large_is_refused_though_it_ends(serve: Serve, parts: list[int]) -> None:
    running = serve("uvicorn")
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as client:
        client.sendall(b"GET /readyz HTTP/1.1\r\nhost: x\r\nx-long: ")
        for length in parts[:-1]:
            client.sendall(b"y" * length)
            time.sleep(0.05)
        client.sendall(b"y" * parts[-1] + b"\r\n\r\n")
        answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 431 ")


def test_large_bodies_and_pipelined_requests_are_not_taken_for_heads(serve: Serve) -> None:
    running = serve("uvicorn")
    body = b"x" * 300_000
    request = b"POST /sent HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as client:
        for _ in range(3):
            client.sendall(request + b"GET /readyz HTTP/1.1\r\nhost")
            time.sleep(0.05)
            client.sendall(b": x\r\n\r\n")
            time.sleep(0.1)
        answers = client.recv(65536)
    assert answers.count(b"HTTP/1.1 200 OK") == 6
    assert b" 431 " not in answers


POST = b"POST /stream HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n"


@pytest.mark.parametrize("begun", [b"POST /str", POST, POST + b"\r\n", POST + b"\r\nhello"])
def test_who_dribbles_a_request_is_told_408(serve: Serve, begun: bytes) -> None:
    running = serve("uvicorn", client_seconds=1)
    with socket.create_connection(("127.0.0.1", running.port), timeout=5) as client:
        began = time.monotonic()
        client.sendall(begun)
        for byte in b"xyz":
            time.sleep(0.25)
            client.sendall(bytes([byte]))
        answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert answer.count(b"HTTP/1.1") == 1
    assert 0.9 < time.monotonic() - began < 2.5


def test_who_says_nothing_is_cut_without_a_word(serve: Serve) -> None:
    running = serve("uvicorn", client_seconds=1)
    with socket.create_connection(("127.0.0.1", running.port), timeout=5) as client:
        assert read_all(client) == b""


def test_who_goes_on_sending_may_take_longer(serve: Serve) -> None:
    running = serve("uvicorn", client_seconds=1)
    with socket.create_connection(("127.0.0.1", running.port), timeout=5) as client:
        client.sendall(b"POST /stream HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 200000\r\n\r\n")
        for _ in range(10):
            client.sendall(b"x" * 20_000)
            time.sleep(0.25)
        assert b"end 200000" in read_all(client)


def test_a_stream_may_last_longer_than_a_client_may_wait(serve: Serve) -> None:
    assert "end" in serve("uvicorn", client_seconds=1).get("/stream").text


@BOTH
def test_who_never_reads_is_cut(serve: Serve, server: str) -> None:
    running = serve(server, client_seconds=1)
    with socket.create_connection(("127.0.0.1", running.port), timeout=5) as client:
        client.sendall(b"GET /flood HTTP/1.1\r\nhost: x\r\n\r\n")
        wait_until(lambda: running.get("/floods").text == "0", seconds=5, what="the writer has been let go")
        assert b"flood end" not in read_all(client)


def test_fields_after_a_body_count_for_nothing(serve: Serve) -> None:
    running = serve("uvicorn")
    with socket.create_connection(("127.0.0.1", running.port), timeout=5) as client:
        head = b"POST /headers HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
        client.sendall(head + b"2\r\nhi\r\n0\r\nauthorization: Bearer evil\r\n\r\n")
        answer = read_all(client)
    assert b"transfer-encoding" in answer
    assert b"evil" not in answer


def read_all(client: socket.socket) -> bytes:
    """What comes until the other side closes or resets the connection."""
    read = b""
    try:
        while part := client.recv(1 << 20):
            read += part
    except ConnectionError:
        pass
    return read


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
