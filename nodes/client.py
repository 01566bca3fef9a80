"""Calls to nodes off the hot path: checks, registration, detection, recovery probes."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

# What httpx would import within its first request, and so count as that node's latency.
import httpcore._backends.anyio  # noqa: F401
import httpx

from llmlb_site.lib.node_addresses import AddressRefused, refuse_address, resolve_name

CONNECT_SECONDS: Final = 2.0
MAX_BYTES: Final = 4 * 1024 * 1024

File = tuple[str, str, bytes]  # name of the field, filename, content
FailureKind = Literal["connect", "timeout", "broken", "refused_address", "too_large"]
_TEXTS: Final[dict[FailureKind, str]] = {
    "connect": "cannot be connected to",
    "timeout": "did not answer in time",
    "broken": "broke the connection or did not answer in HTTP",
    "refused_address": "has a name that leads to an address that is not allowed",
    "too_large": "gave too large an answer",
}


class CallFailed(Exception):
    """No whole answer came. The text names no address, so that it may be shown and logged."""

    def __init__(self, kind: FailureKind, text: str = "") -> None:
        super().__init__(text or _TEXTS[kind])
        self.kind = kind

    @property
    def is_connect(self) -> bool:
        return self.kind == "connect"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a node is and the key that every call to it carries. Not to be logged.

    `headers` are sent too: a cloud provider's way to be told the key.
    """

    base_url: str
    api_key: str = ""
    headers: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        return "Target(…)"


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer, whatever its status."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    latency_ms: float

    @property
    def document(self) -> Any:
        """The body as JSON; None where it is not, or the status is not 200."""
        if self.status != 200:
            return None
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


async def call(
    target: Target,
    path: str,
    *,
    timeout: float,
    body: Mapping[str, Any] | None = None,
    file: File | None = None,
    method: str = "",
    most: int = MAX_BYTES,
) -> Reply:
    """GET `path` of a node, or POST `body` to it as JSON, or with a file as a form; or another `method`.

    Redirects are not followed, proxies not asked.

    `timeout` is for all of it, in seconds; connecting takes at most `CONNECT_SECONDS` of it. `most` is how many bytes
    an answer may have.

    Raises:
        CallFailed: the node could not be reached or did not answer whole and in time.
    """
    _tls_context()  # made once, and not on the clock of the first call
    started = time.perf_counter()
    sent: dict[str, Any] = {"json": body}
    if file is not None:
        name, filename, content = file
        sent = {"data": body, "files": {name: (filename, content)}}
    with _told_as_failure():
        async with asyncio.timeout(timeout), _client(timeout) as client:
            url, method = target.base_url + path, method or ("GET" if body is None else "POST")
            async with client.stream(method, url, headers=_headers(target), **sent) as response:
                data = await _read(response, most)
    return Reply(response.status_code, response.headers, data, (time.perf_counter() - started) * 1000)


async def call_for_lines(
    target: Target, path: str, *, body: Mapping[str, Any], silence: float
) -> AsyncGenerator[tuple[int, str]]:
    """POST `body`, and yield the answer's status with each of its lines as they come.

    `silence` is the longest time without a byte, in seconds. Raises: CallFailed.
    """
    with _told_as_failure():
        async with (
            _client(silence) as client,
            client.stream("POST", target.base_url + path, headers=_headers(target), json=body) as response,
        ):
            async for line in response.aiter_lines():
                yield response.status_code, line


@contextmanager
def _told_as_failure() -> Iterator[None]:
    """The client's exceptions as ours."""
    try:
        yield
    except (TimeoutError, httpx.TimeoutException) as error:
        kind: FailureKind = "connect" if isinstance(error, httpx.ConnectTimeout) else "timeout"
        raise CallFailed(kind) from error
    except AddressRefused as error:
        raise CallFailed("refused_address") from error
    except httpx.ConnectError as error:
        raise CallFailed("connect", _connect_text(error)) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise CallFailed("broken") from error


def _client(timeout: float) -> httpx.AsyncClient:
    limits = httpx.Timeout(timeout, connect=min(CONNECT_SECONDS, timeout))
    return httpx.AsyncClient(transport=GuardedTransport(), timeout=limits, trust_env=False)


def _headers(target: Target) -> dict[str, str]:
    headers = {"Accept": "application/json, */*;q=0.5", "Accept-Encoding": "identity", "User-Agent": "llmlb"}
    if target.api_key:
        headers["Authorization"] = f"Bearer {target.api_key}"
    headers.update(target.headers)
    return headers


async def _read(response: httpx.Response, most: int) -> bytes:
    pieces, size = [], 0
    async for piece in response.aiter_bytes():
        size += len(piece)
        if size > most:
            raise CallFailed("too_large")
        pieces.append(piece)
    return b"".join(pieces)


def _connect_text(error: httpx.ConnectError) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return "has a TLS certificate or protocol that is not accepted"
        if isinstance(cause, socket.gaierror):
            return "has a name that is not known"
        if isinstance(cause, ConnectionRefusedError):
            return "refuses connections"
        cause = cause.__cause__ or cause.__context__
    return _TEXTS["connect"]


class GuardedTransport(httpx.AsyncBaseTransport):
    """Resolves the name itself and connects to an address that it has checked: a name may lead elsewhere tomorrow."""

    def __init__(self) -> None:
        self._inner = httpx.AsyncHTTPTransport(verify=_tls_context(), trust_env=False)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        failure: Exception = httpx.ConnectError("no address", request=request)
        for address in await _checked_addresses(request.url):
            try:
                return await self._inner.handle_async_request(_pinned(request, address))
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error
        raise failure

    async def aclose(self) -> None:
        await self._inner.aclose()


@cache
def _tls_context() -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=False)


def _pinned(request: httpx.Request, address: str) -> httpx.Request:
    """The same request to one address. Host header, SNI and certificate check stay those of the name."""
    if address == request.url.host:
        return request
    return httpx.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": request.url.host},
    )


async def _checked_addresses(url: httpx.URL) -> list[str]:
    port = url.port or (443 if url.scheme == "https" else 80)
    addresses = [url.host] if _is_literal(url.host) else await _resolve(url.host, port)
    for address in addresses:
        refuse_address(address)
    return addresses


def _is_literal(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()


async def _resolve(host: str, port: int) -> list[str]:
    """Every address of a name. In a thread of its own: a DNS that hangs must not hold up other names' threads."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[str]] = loop.create_future()

    def look_up() -> None:
        try:
            found, failure = resolve_name(host, port), None
        except OSError as error:
            found, failure = [], error
        if not loop.is_closed():
            loop.call_soon_threadsafe(_settle, answer, found, failure)

    threading.Thread(target=look_up, name="llmlb-resolve", daemon=True).start()
    try:
        return await answer
    except OSError as error:
        raise httpx.ConnectError("name not known") from error


def _settle(answer: asyncio.Future[list[str]], found: list[str], failure: OSError | None) -> None:
    if answer.done():
        return
    if failure is None:
        answer.set_result(found)
    else:
        answer.set_exception(failure)
