"""The HTTP client of the hot path: pooled keep-alive connections, nothing between the socket and the caller.

Why not a library: see docs/upstream-client.md for what was compared. What it does not do, by intent: redirects
(a node that redirects is not a node), proxies from the environment, cookies, decompression.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import defaultdict
from typing import Final

from llmlb_site.lib.host_addresses import is_no_host
from llmlb_site.lib.upstream.base import BodySource, Headers, PoolKey, Target, UpstreamAnswer
from llmlb_site.lib.upstream.connection import Connection, StaleConnection
from llmlb_site.lib.upstream.faults import ConnectFault

# Below the keep-alive of the servers that nodes run (uvicorn and llama.cpp: 5 s), so that the race to reuse a
# connection which is just being closed is rarely run.
IDLE_SECONDS: Final = 4.0
MAX_IDLE_PER_NODE: Final = 256
JOINED_BYTES: Final = 32 * 1024
_USUALLY_BARE: Final = frozenset({"GET", "HEAD", "DELETE"})  # without a body, nothing is said of its length
# How often it is looked who has waited too long: a time-out, which is seconds, comes late by twice that at most.
TICK_SECONDS: Final = 0.1


class Answer:
    """`UpstreamAnswer` over one connection, which goes back to the pool if the body was read to its end."""

    __slots__ = ("_client", "_connection", "_key", "headers", "pump", "read", "status", "whole")

    def __init__(self, client: PooledClient, key: PoolKey, connection: Connection) -> None:
        self._client = client
        self._key = key
        self._connection: Connection | None = connection
        self.status = connection.status
        self.headers = connection.headers
        self.read = connection.read
        self.pump = connection.pump
        self.whole = connection.whole

    def abort(self) -> None:
        if self._connection is not None:
            self._client._abort(self._connection)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self.read, self.whole = _nothing, bytes
            self._client._give_back(self._key, connection)


async def _nothing() -> bytes:
    return b""


class PooledClient:
    """`Upstream` over HTTP/1.1. One per process; belongs to the event loop that it is used on."""

    def __init__(self, *, connect_timeout: float) -> None:
        self._connect_timeout = connect_timeout
        self._idle: defaultdict[PoolKey, list[Connection]] = defaultdict(list)
        self._tls: ssl.SSLContext | None = None
        self._closed = False
        # Those that a node owes bytes to. One timer looks after all of them, instead of one a request.
        self._asking: set[Connection] = set()
        self._ticking = False
        self._sweeping = False

    async def send(
        self, target: Target, method: str, path: str, headers: Headers, body: bytes | BodySource, *, silence: float
    ) -> UpstreamAnswer:
        """See `Upstream.send`."""
        source = None if isinstance(body, bytes) else body
        data = _request_bytes(target, method, path, headers, body)
        key = target.pool_key
        connection = self._reuse(key) or await self._connect(key)
        self._watch(connection)
        try:
            try:
                await connection.ask(data, source, silence)
            except StaleConnection:
                self._abort(connection)
                connection = await self._connect(key)
                self._watch(connection)
                await connection.ask(data, source, silence)
        except BaseException:
            self._abort(connection)
            raise
        return Answer(self, key, connection)

    async def aclose(self) -> None:
        self._closed = True
        for connections in self._idle.values():
            for connection in connections:
                connection.abort()
        self._idle.clear()
        for connection in tuple(self._asking):  # whoever still waits is told, and the timer ends
            self._abort(connection)

    def _reuse(self, key: PoolKey) -> Connection | None:
        """The connection used last, so that the others may grow old and be closed."""
        idle = self._idle.get(key)
        if not idle:
            return None
        oldest = idle[-1].loop_time() - IDLE_SECONDS
        while idle:
            connection = idle.pop()
            if connection.lost or connection.transport.is_closing():
                continue
            if connection.idle_since < oldest:
                for old in (connection, *idle):
                    old.abort()
                idle.clear()
                return None
            return connection
        return None

    async def _connect(self, key: PoolKey) -> Connection:
        host, port, secure = key
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_timeout):
                _, connection = await loop.create_connection(
                    lambda: Connection(loop), host, port, ssl=self._tls_context() if secure else None
                )
        except TimeoutError:
            raise ConnectFault("no connection within the time-out") from None
        except (OSError, ssl.SSLError) as error:
            raise ConnectFault(_connect_failure(error)) from None
        self._check_where_it_led(connection)
        return connection

    def _check_where_it_led(self, connection: Connection) -> None:
        """A name that was fine when the node was registered may lead to a metadata service today."""
        peer = connection.transport.get_extra_info("peername")
        if is_no_host(peer[0] if peer else ""):
            connection.abort()
            raise ConnectFault("its name leads to an address that is not allowed")

    def _give_back(self, key: PoolKey, connection: Connection) -> None:
        idle = self._idle[key]
        if self._closed or not connection.reusable or len(idle) >= MAX_IDLE_PER_NODE:
            self._abort(connection)
            return
        self._asking.discard(connection)
        connection.rest()
        idle.append(connection)
        if not self._sweeping:
            self._sweep_later()

    def _sweep_later(self) -> None:
        self._sweeping = True
        asyncio.get_running_loop().call_later(IDLE_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Close what a busy time has left, also at a node that is gone by now: some nodes never close a connection."""
        self._sweeping = False
        oldest = asyncio.get_running_loop().time() - IDLE_SECONDS
        for key, idle in tuple(self._idle.items()):
            fresh = [each for each in idle if each.idle_since >= oldest and not each.lost]
            for each in idle:
                if each.idle_since < oldest:
                    each.abort()
            if fresh:
                self._idle[key] = fresh
            else:
                del self._idle[key]
        if self._idle:
            self._sweep_later()

    def _abort(self, connection: Connection) -> None:
        self._asking.discard(connection)
        connection.abort()

    def _watch(self, connection: Connection) -> None:
        self._asking.add(connection)
        if not self._ticking:
            self._ticking = True
            asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        """Whoever a node has kept waiting for too long is told so. Ends when nobody waits."""
        self._ticking = bool(self._asking)
        if not self._asking:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in tuple(self._asking):
            connection.check_silence(now)
        loop.call_later(TICK_SECONDS, self._tick)

    def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls


def _request_bytes(target: Target, method: str, path: str, headers: Headers, body: bytes | BodySource) -> list[bytes]:
    """The head, and the body if it is in memory: in one piece where that is not much to copy."""
    held, length = (body, len(body)) if isinstance(body, bytes) else (b"", body.length)
    ends = (b"Content-Length: %d" % length, b"") if length or method not in _USUALLY_BARE else (b"",)
    head = b"%b%b\r\n" % (target.opening(method, path), b"\r\n".join([*map(b": ".join, headers), *ends]))
    return [head, held] if len(held) > JOINED_BYTES else [head + held]


def _connect_failure(error: OSError) -> str:
    """Why, in words that name no address (an OSError's own text does)."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ssl.SSLError):
        return "the TLS handshake failed"
    return "no connection could be made"
