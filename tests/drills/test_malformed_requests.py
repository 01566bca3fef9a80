"""Requests that two servers could read in two ways: refused before anything is done with them, or read as is right."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from typing import Final

import pytest

from tests.blackbox.conftest import MakeProduct
from tests.drills.conftest import Drill, MakeNodeProcess
from tests.drills.fleet import routed

BODY: Final = b'{"model": "model-a", "messages": [{"role": "user", "content": "Hello"}]}'
CHUNKED: Final = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
LENGTH: Final = b"Content-Length: %d\r\n" % len(BODY)
TE: Final = b"Transfer-Encoding: chunked\r\n"
LINE: Final = b"POST /v1/chat/completions HTTP/1.1\r\n"

# What is wrong with it → the request, around `own`: the headers that every honest one has.
Wrong = Callable[[bytes], bytes]
MALFORMED: Final[dict[str, Wrong]] = {
    "Content-Length and Transfer-Encoding": lambda own: LINE + own + LENGTH + TE + b"\r\n" + CHUNKED,
    "two Content-Lengths that differ": lambda own: LINE + own + LENGTH + b"Content-Length: 5\r\n\r\n" + BODY,
    "two Content-Lengths that agree": lambda own: LINE + own + LENGTH * 2 + b"\r\n" + BODY,
    "a list of Content-Lengths": lambda own: LINE + own + LENGTH.replace(b"\r", b", 5\r") + b"\r\n" + BODY,
    "a negative Content-Length": lambda own: LINE + own + b"Content-Length: -5\r\n\r\n" + BODY,
    "a Content-Length with a sign": lambda own: LINE + own + LENGTH.replace(b": ", b": +") + b"\r\n" + BODY,
    "a Content-Length beyond 64 bits": lambda own: LINE + own + b"Content-Length: 18446744073709551688\r\n\r\n" + BODY,
    "an unknown transfer coding": lambda own: LINE + own + TE.replace(b" c", b" xc") + b"\r\n" + CHUNKED,
    "chunked twice": lambda own: LINE + own + TE.replace(b"\r", b", chunked\r") + b"\r\n" + CHUNKED,
    "two Transfer-Encodings": lambda own: LINE + own + TE + b"Transfer-Encoding: identity\r\n\r\n" + CHUNKED,
    "chunked, but not last": lambda own: LINE + own + TE.replace(b"\r", b", gzip\r") + b"\r\n" + CHUNKED,
    "a folded Transfer-Encoding": lambda own: LINE + own + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + CHUNKED,
    "a folded header": lambda own: LINE + own + LENGTH + b"X-Long: one\r\n two\r\n\r\n" + BODY,
    "a space before the colon": lambda own: LINE + own + b"Transfer-Encoding : chunked\r\n\r\n" + CHUNKED,
    "lines that end without CR": lambda own: (LINE + own + LENGTH + b"\r\n").replace(b"\r\n", b"\n") + BODY,
    "a CR alone in a header": lambda own: LINE + own + LENGTH + b"X-A: b\rX-C: d\r\n\r\n" + BODY,
    "a NUL in a header": lambda own: LINE + own + LENGTH + b"X-A: b\x00c\r\n\r\n" + BODY,
    "a header without a name": lambda own: LINE + own + LENGTH + b": value\r\n\r\n" + BODY,
    "a chunk of more than 64 bits": lambda own: LINE + own + TE + b"\r\n1000000000000000%x\r\n" % len(BODY) + BODY,
    "a chunk longer than it says": lambda own: LINE + own + TE + b"\r\n5\r\n" + BODY + b"\r\n0\r\n\r\n",
    "a chunk size that is no number": lambda own: LINE + own + TE + b"\r\n0x%x\r\n" % len(BODY) + BODY,
    "chunked in HTTP/1.0": lambda own: LINE.replace(b"1.1", b"1.0") + own + TE + b"\r\n" + CHUNKED,
    "no Host": lambda own: LINE + own.replace(b"Host: drill\r\n", b"") + LENGTH + b"\r\n" + BODY,
    "two Hosts": lambda own: LINE + own + LENGTH + b"Host: other\r\n\r\n" + BODY,
    "a target of another host": lambda own: LINE.replace(b"/v1", b"http://other/v1") + own + LENGTH + b"\r\n" + BODY,
    "a target with credentials": lambda own: (
        LINE.replace(b"/v1", b"http://a:b@drill/v1") + own + LENGTH + b"\r\n" + BODY
    ),
    "a target with a space": lambda own: LINE.replace(b"/v1", b"/v1 /v1") + own + LENGTH + b"\r\n" + BODY,
    "an unknown version": lambda own: LINE.replace(b"1.1", b"1.9") + own + LENGTH + b"\r\n" + BODY,
    "10 000 headers": lambda own: LINE + own + LENGTH + b"a: b\r\n" * 10_000 + b"\r\n" + BODY,
}

# Daphne joins folded lines, as RFC 9112 (5.2) allows, and waits for the rest of what it takes for the beginning of one.
READ_AS_TOLD: Final[dict[str, set[str]]] = {
    "uvicorn": set(),
    "daphne": {
        "a folded Transfer-Encoding",
        "a folded header",
        "lines that end without CR",
        "a chunk of more than 64 bits",
    },
}

# To another protocol, which is not spoken here: the request is what it would be without (RFC 9110, 7.8).
UPGRADES: Final = {
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
    "an unknown protocol": b"Connection: upgrade\r\nUpgrade: foo\r\n",
    "a list of protocols": b"Connection: upgrade\r\nUpgrade: foo, websocket\r\n",
}
NEXT: Final = b"GET /livez HTTP/1.1\r\nHost: drill\r\nConnection: close\r\n\r\n"


def ask(port: int, *parts: bytes) -> tuple[bytes, bool]:
    """What is answered, and whether the connection is closed then. Each part is a segment of its own."""
    with socket.create_connection(("127.0.0.1", port), timeout=2) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answered = b""
        try:
            for part in parts:
                client.sendall(part)
                time.sleep(0.05 if len(parts) > 1 else 0)
            while part := client.recv(65536):
                answered += part
        except TimeoutError:
            return answered, False
        except ConnectionError:
            pass
        return answered, True


def is_refused(answered: bytes, closed: bool) -> bool:
    statuses = set(statuses_of(answered))
    return closed and bool(statuses) and statuses <= {b"400", b"413", b"431"}


def statuses_of(answered: bytes) -> list[bytes]:
    return re.findall(rb"HTTP/1\.1 (\d+)", answered)


@pytest.mark.parametrize("server", ["uvicorn", "daphne"])
def test_malformed_and_smuggling_requests_are_refused(
    product: MakeProduct, node_process: MakeNodeProcess, drill: Drill, server: str
) -> None:
    running = product(command=("serve", "--server", server)).start()
    node = node_process()
    routed(running, node)
    own = f"Host: drill\r\nAuthorization: Bearer {running.key}\r\nContent-Type: application/json\r\n".encode()
    honest, _closed = ask(running.port, LINE + own + LENGTH + b"Connection: close\r\n\r\n" + BODY)
    assert honest.startswith(b"HTTP/1.1 200"), honest
    before = node.state()["inferences"]
    asked = {name: wrong for name, wrong in MALFORMED.items() if name not in READ_AS_TOLD[server]}
    answers = {name: ask(running.port, wrong(own)) for name, wrong in asked.items()}
    let_in = [name for name, answer in answers.items() if not is_refused(*answer)]
    forwarded = node.state()["inferences"] - before
    refused = f"{len(asked) - len(let_in)} of {len(asked)} refused with 4xx and closed"
    drill.record(
        f"malformed and smuggling requests, {server}",
        f"{refused}, {forwarded} reached a node" + "".join(f"; let in: {name}" for name in let_in),
        goal="all refused, none at a node",
        ok=not let_in and not forwarded,
    )


@pytest.mark.parametrize("server", ["uvicorn", "daphne"])
def test_what_is_in_a_body_stays_there_when_an_upgrade_is_asked_for(
    product: MakeProduct, node_process: MakeNodeProcess, drill: Drill, server: str
) -> None:
    running = product(command=("serve", "--server", server)).start()
    node = node_process()
    routed(running, node)
    own = f"Host: drill\r\nAuthorization: Bearer {running.key}\r\nContent-Type: application/json\r\n".encode()
    inference = LINE + own + LENGTH + b"\r\n" + BODY
    misread = misread_bodies(running.port, LINE + own, BODY, [b"200", b"200"])
    before = node.state()["inferences"]
    misread += misread_bodies(running.port, LINE + own, inference, [b"400", b"200"])
    smuggled = node.state()["inferences"] - before
    drill.record(
        f"a body behind an upgrade that is not wanted, {server}",
        f"{len(misread)} misread, {smuggled} requests out of bodies" + "".join(f"; {name}" for name in misread),
        goal="none, none",
        ok=not misread and not smuggled,
    )


def misread_bodies(port: int, beginning: bytes, body: bytes, expected: list[bytes]) -> list[str]:
    """The upgrades with which this body, and the request behind it, are not answered with these statuses."""
    misread = []
    for name, upgrade in UPGRADES.items():
        head = beginning + upgrade + b"Content-Length: %d\r\n\r\n" % len(body)
        for parts in ((head + body + NEXT,), (head, body, NEXT)):
            answered, _closed = ask(port, *parts)
            if statuses_of(answered) != expected:
                misread.append(f"{name}, segments: {len(parts)}")
    return misread
