"""What the gateway's own code costs a request, without sockets: `python -m benchmarks.hot_path [--profile]`.

The real consumer, routed by Channels as in production, between a client and a node that are functions. No server, no
HTTP client and no history: what is left is ours, so that a change shows in microseconds. For the whole product see
`benchmarks.side_by_side`.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import os
import pstats
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

from llmlb_site.lib.direct import DIRECT

_data_dir = tempfile.TemporaryDirectory(prefix="llmlb-bench-")  # gone with the process
os.environ.setdefault("LLMLB_DATA_DIR", _data_dir.name)
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmlb_site.settings")

MODEL = "bench-model"
ANSWER = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"bench-model","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"' + b"word " * 160 + b'"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":200,"completion_tokens":160,"total_tokens":360}}'
)
CHUNK = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"bench-model","choices":'
    b'[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}\n\n'
)
LAST = CHUNK.replace(b'"finish_reason":null', b'"finish_reason":"stop"')
CHUNKS = 50


class NodeAnswer:
    """A node's answer, all of it here already; its reader gives the loop a turn, as a socket would."""

    status = 200

    def __init__(self, stream: bool) -> None:
        kind = b"text/event-stream" if stream else b"application/json"
        self.headers = [(b"date", b"now"), (b"server", b"uvicorn"), (b"content-type", kind)]
        if not stream:
            self.headers.append((b"content-length", b"%d" % len(ANSWER)))
        self._pieces = iter([CHUNK] * CHUNKS + [LAST, b"data: [DONE]\n\n"] if stream else [ANSWER])

    def whole(self) -> bytes | None:
        return None

    async def read(self) -> bytes:
        await asyncio.sleep(0)
        return next(self._pieces, b"")

    async def pump(self, sink: Callable[[bytes], bool]) -> bool:
        await asyncio.sleep(0)
        for piece in self._pieces:
            sink(piece)
        return False

    def abort(self) -> None:
        pass

    def close(self) -> None:
        pass


class Node:
    """`Upstream` to a node that answers at once."""

    async def send(
        self, target: Any, method: str, path: str, headers: Any, body: bytes, *, silence: float
    ) -> NodeAnswer:
        await asyncio.sleep(0)
        return NodeAnswer(b'"stream":true' in body)

    async def aclose(self) -> None:
        pass


class Counter:
    """`Direct` to a client that takes everything at once."""

    taken = 0

    def on_hang_up(self, call: Callable[[], None] | None) -> bool:
        return False

    def start(self, status: int, headers: Any) -> None:
        assert status == 200, status

    def piece(self, body: bytes) -> bool:
        self.taken += len(body)
        return True

    def answer(self, status: int, headers: Any, body: bytes) -> None:
        self.start(status, headers)
        self.piece(body)


class NoRecorder:
    """Where the rows go when the history is not what is measured."""

    def put(self, entry: Any) -> None:
        pass


def request_body(size: int, stream: bool) -> bytes:
    """A chat request of about `size` bytes."""
    said = (b"The quick brown fox keeps its promises. " * (size // 40 + 1))[: max(1, size - 120)]
    tail = b',"stream":true' if stream else b""
    return b'{"model":"%s","messages":[{"role":"user","content":"%s"}]%s}' % (MODEL.encode(), said, tail)


async def client(application: Any, scope: dict[str, Any], body: bytes) -> int:
    """One request; returns the bytes of its answer."""
    asked = False
    gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def receive() -> dict[str, Any]:
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request", "body": body, "more_body": False}
        await gone
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        direct.piece(message["body"])

    direct = Counter()
    await application({**scope, "extensions": {DIRECT: direct}}, receive, send)
    return direct.taken


def application_and_key() -> tuple[Any, str]:
    """The routed gateway over one node, with a thousand keys, of which one is returned."""
    import django

    django.setup()
    from access import keys
    from access.permissions import Permission
    from llmlb_site.asgi import Root
    from routing.core.table import NodeEntry, Principal, RoutingTable

    root = Root()
    engine = root.runtime.engine
    root.runtime.started = True
    engine.upstream = Node()  # type: ignore[assignment]  # its answers have what is read of one
    engine.recorder = NoRecorder()  # type: ignore[assignment]  # all that the path of a request needs of one
    nodes = [NodeEntry(number, f"node-{number}", f"http://127.0.0.1:{9000 + number}") for number in (1, 2)]
    engine._install(RoutingTable.build(nodes, [(node.id, MODEL) for node in nodes]))
    minted = [keys.mint() for _ in range(1000)]
    engine._install_principals(
        {
            key.public_id: Principal(number, "a key", key.digest, frozenset(p.value for p in Permission))
            for number, key in enumerate(minted, 1)
        }
    )
    return root, minted[500].text


def scope_of(key: str, body: bytes) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/chat/completions",
        "raw_path": b"/v1/chat/completions",
        "root_path": "",
        "query_string": b"",
        "headers": [
            (b"host", b"127.0.0.1:32768"),
            (b"authorization", b"Bearer " + key.encode()),
            (b"content-type", b"application/json"),
            (b"user-agent", b"bench"),
            (b"content-length", b"%d" % len(body)),
        ],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 32768),
        "state": {},
    }


async def _run(application: Any, scope: dict[str, Any], body: bytes, count: int) -> None:
    for _ in range(count):
        await asyncio.create_task(client(application, scope, body))


def measure(application: Any, key: str, *, size: int, stream: bool, count: int, rounds: int) -> list[float]:
    """CPU microseconds a request, of each round."""
    import uvloop

    body = request_body(size, stream)
    scope = scope_of(key, body)
    figures = []
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(application, scope, body, count // 5))
        for _ in range(rounds):
            before = time.process_time()
            runner.run(_run(application, scope, body, count))
            figures.append((time.process_time() - before) / count * 1e6)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--profile", action="store_true", help="where the time of whole answers goes")
    parser.add_argument("--profile-stream", action="store_true")
    options = parser.parse_args()
    application, key = application_and_key()
    if options.profile or options.profile_stream:
        profiler = cProfile.Profile()
        profiler.enable()
        stream = options.profile_stream
        measure(application, key, size=1000, stream=stream, count=300 if stream else 5000, rounds=1)
        profiler.disable()
        pstats.Stats(profiler).sort_stats("tottime").print_stats(45)
        return
    for name, size, stream, count in (
        ("whole answer, 1 KB", 1000, False, 4000),
        ("whole answer, 100 KB", 100_000, False, 1000),
        (f"stream of {CHUNKS} chunks", 1000, True, 400),
    ):
        figures = measure(application, key, size=size, stream=stream, count=count, rounds=options.rounds)
        median, low = statistics.median(figures), min(figures)
        each = f", {median / CHUNKS:.1f} a chunk" if stream else ""
        print(f"{name:24} {median:7.1f} µs a request (lowest {low:.1f}){each}")


if __name__ == "__main__":
    main()
