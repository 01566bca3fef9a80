"""A server of files on a real socket that misbehaves on demand, and speaks enough of Hugging Face's API for a pull."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class Served:
    """One file, and what is wrong with the way it is served. The first `times` requests are, the others are not."""

    content: bytes
    drop_after: int | None = None
    times: int = 1
    ranges: bool = True
    length: int | None = None
    chunked: bool = False
    etag: str = ""
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    redirect: str = ""
    slow: float = 0.0  # seconds between pieces of 64 KiB
    asked: int = 0


@dataclass(frozen=True)
class Asked:
    path: str
    headers: dict[str, str]


class FileServer:
    """`files` by path. `repositories`: their files by path, large ones with sha256, small ones with Git's hash."""

    def __init__(self) -> None:
        self.files: dict[str, Served] = {}
        self.repositories: dict[str, list[dict[str, Any]]] = {}
        self.asked: list[Asked] = []
        self.token = ""
        server = self

        class Handler(_Handler):
            files = server

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def add(self, path: str, content: bytes, **wrong: Any) -> Served:
        self.files[path] = Served(content, **wrong)
        return self.files[path]

    def add_repository(self, repo: str, files: dict[str, bytes], *, small: int = 1000, **wrong: Any) -> None:
        """Files above `small` bytes are large ones; `wrong` is how those are served."""
        self.repositories[repo] = [_sibling(path, content, len(content) > small) for path, content in files.items()]
        for path, content in files.items():
            self.add(f"/{repo}/resolve/abc123/{path}", content, **(wrong if len(content) > small else {}))

    def file(self, repo: str, path: str) -> Served:
        return self.files[f"/{repo}/resolve/abc123/{path}"]

    def asked_for(self, end: str) -> list[Asked]:
        return [asked for asked in self.asked if asked.path.endswith(end)]

    @contextlib.contextmanager
    def running(self) -> Iterator[FileServer]:
        self._thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            self._http.server_close()
            self._thread.join(5)


def _sibling(path: str, content: bytes, large: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {"rfilename": path, "size": len(content)}
    if large:
        return {
            **entry,
            "blobId": "f" * 40,
            "lfs": {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)},
        }
    return {**entry, "blobId": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()}


class _Handler(BaseHTTPRequestHandler):
    files: FileServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a test's output is its own."""

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.files.asked.append(Asked(path, {name.lower(): value for name, value in self.headers.items()}))
        with contextlib.suppress(OSError):
            if path.startswith("/api/models/"):
                return self._repository(path)
            if self.files.token and self.headers.get("Authorization") != f"Bearer {self.files.token}":
                return self._plain(401)
            served = self.files.files.get(path)
            if served is None:
                return self._plain(404)
            served.asked += 1
            self._serve(served, wrong=served.asked <= served.times)

    def _repository(self, path: str) -> None:
        found = self.files.repositories.get(path.removeprefix("/api/models/").partition("/revision/")[0])
        if found is None or (self.files.token and self.headers.get("Authorization") != f"Bearer {self.files.token}"):
            return self._plain(401)
        body = json.dumps({"sha": "abc123", "siblings": found}).encode()
        self._plain(200, body)

    def _plain(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _serve(self, served: Served, *, wrong: bool) -> None:
        if served.redirect:
            return self._plain(302, headers={"Location": served.redirect})
        if served.status and wrong:
            return self._plain(served.status, headers=served.headers)
        start = self._start(served)
        if start > len(served.content):
            return self._plain(416)
        body = served.content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(served.content) - 1}/{len(served.content)}")
        if served.etag:
            self.send_header("ETag", served.etag)
        if served.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(served.length if wrong and served.length is not None else len(body)))
        self.end_headers()
        self._send(served, body, wrong)

    def _start(self, served: Served) -> int:
        asked = self.headers.get("Range", "")
        same = self.headers.get("If-Range", served.etag) == served.etag
        return int(asked.removeprefix("bytes=").partition("-")[0]) if asked and served.ranges and same else 0

    def _send(self, served: Served, body: bytes, wrong: bool) -> None:
        if served.chunked:
            self.wfile.write(b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n")
            return
        if wrong and served.drop_after is not None:
            self.wfile.write(body[: served.drop_after])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        for start in range(0, len(body), 65536):
            self.wfile.write(body[start : start + 65536])
            if served.slow:
                time.sleep(served.slow)
        if wrong and served.length is not None:
            self.close_connection = True
