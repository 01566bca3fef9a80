"""A node that takes uploads of any size without keeping them: it counts and hashes what comes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODELS = {"object": "list", "data": [{"id": "whisper-1", "object": "model", "owned_by": "sink"}]}


class Sink(ThreadingHTTPServer):
    """`taken`: length and SHA-256 of each upload."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.taken: list[tuple[int, str]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Sink

    def do_GET(self) -> None:
        found = self.path == "/v1/models"
        self._answer(200 if found else 404, MODELS if found else {"error": "no such page"})

    def do_POST(self) -> None:
        left = length = int(self.headers["content-length"])
        digest = hashlib.sha256()
        while left:
            piece = self.rfile.read(min(left, 65536))
            digest.update(piece)
            left -= len(piece)
        self.server.taken.append((length, digest.hexdigest()))
        self._answer(200, {"text": "hello"})

    def _answer(self, status: int, document: Any) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the tests' output is not the place."""


@contextlib.contextmanager
def running_sink() -> Iterator[Sink]:
    """A sink on a thread of its own."""
    sink = Sink()
    thread = threading.Thread(target=sink.serve_forever, daemon=True)
    thread.start()
    try:
        yield sink
    finally:
        sink.shutdown()
        sink.server_close()
        thread.join(timeout=10)
