"""Requests that two servers could read in two ways, or that are none: refused before anything is done with them."""

from __future__ import annotations

import re
import socket
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
    "an unknown transfer coding": lambda own: LINE + own + TE.replace(b"c", b"xc", 1) + b"\r\n" + CHUNKED,
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


def ask(port: int, data: bytes) -> tuple[bytes, bool]:
    """What is answered, and whether the connection is closed then."""
    with socket.create_connection(("127.0.0.1", port), timeout=2) as client:
        answered = b""
        try:
            client.sendall(data)
            while part := client.recv(65536):
                answered += part
        except TimeoutError:
            return answered, False
        except ConnectionError:
            pass
        return answered, True


def is_refused(answered: bytes, closed: bool) -> bool:
    statuses = set(re.findall(rb"^HTTP/1\.1 (\d+)", answered, re.M))
    return closed and bool(statuses) and statuses <= {b"400", b"413", b"431"}


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
