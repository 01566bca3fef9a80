"""HTTP to the allowed origins: redirects are followed by hand, each one checked, and no token crosses an origin."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from time import time
from typing import Any, Final
from urllib.parse import urljoin

import httpx

from nodes.runtime.fetching.failures import BadWish, FetchFailed, Interrupted
from nodes.runtime.fetching.origins import Origins, origin_of

MAX_REDIRECTS: Final = 8
MAX_DOCUMENT: Final = 20 * 1024 * 1024
MAX_WAIT: Final = 300.0
CONNECT_SECONDS: Final = 10.0
SILENCE_SECONDS: Final = 30.0
TRY_AGAIN: Final = frozenset({408, 425, 500, 502, 503, 504})


class Web:
    """One client for one pull, used from one thread. Proxies of the environment are honoured."""

    def __init__(self, origins: Origins, *, silence: float = SILENCE_SECONDS) -> None:
        """`silence`: after so many seconds without a byte a connection is given up."""
        self.origins = origins
        # httpx logs every URL at INFO, and those of large files are signed: who has one may fetch.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        self._client = httpx.Client(
            timeout=httpx.Timeout(silence, connect=CONNECT_SECONDS),
            headers={"User-Agent": "llmlb-node", "Accept-Encoding": "identity"},
        )

    def close(self) -> None:
        self._client.close()

    @contextmanager
    def get(self, url: str, headers: Mapping[str, str] | None = None) -> Iterator[httpx.Response]:
        """The last answer of a chain of redirects, its body unread, its status one of success or 416.

        Raises:
            OriginRefused, Interrupted, FetchFailed
        """
        for _hop in range(MAX_REDIRECTS):
            self.origins.check(url)
            with self._send(url, headers or {}) as response:
                if response.has_redirect_location:
                    url = urljoin(url, response.headers["location"])
                    continue
                _refuse_failure(response, url)
                with _as_ours(url):
                    yield response
                return
        raise FetchFailed(f"{origin_of(url)} redirects without end")

    def document(self, url: str) -> Any:
        """A JSON document. Raises: as `get`; FetchFailed, if it is none or larger than any should be."""
        pieces, size = [], 0
        with self.get(url, {"Accept": "application/json"}) as response:
            for piece in response.iter_bytes():
                pieces.append(piece)
                size += len(piece)
                if size > MAX_DOCUMENT:
                    raise FetchFailed(f"{origin_of(url)} gave too large an answer")
        try:
            return json.loads(b"".join(pieces))
        except (ValueError, RecursionError) as error:
            raise FetchFailed(f"{origin_of(url)} gave no JSON where there should be some") from error

    @contextmanager
    def _send(self, url: str, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        with _as_ours(url):
            request = self._client.build_request("GET", url, headers={**headers, **self.origins.headers_for(url)})
            response = self._client.send(request, stream=True, follow_redirects=False)
        try:
            yield response
        finally:
            response.close()


@contextmanager
def _as_ours(url: str) -> Iterator[None]:
    """The client's exceptions in our words."""
    try:
        yield
    except httpx.TimeoutException as error:
        raise Interrupted(f"{origin_of(url)} did not answer in time") from error
    except httpx.InvalidURL as error:
        raise BadWish("this is not a URL") from error
    except httpx.TransportError as error:
        raise Interrupted(f"the connection to {origin_of(url)} broke ({type(error).__name__})") from error


def _refuse_failure(response: httpx.Response, url: str) -> None:
    status, origin = response.status_code, origin_of(url)
    if status in {200, 206, 416}:
        return
    if status in {401, 403}:
        raise FetchFailed(f"{origin} refuses ({status}): no such model, or one that needs HF_TOKEN of someone who may")
    if status in {404, 410}:
        raise FetchFailed(f"{origin} does not have it ({status})")
    if status == 429 or status in TRY_AGAIN:
        raise Interrupted(f"{origin} answered {status}", wait=_retry_after(response.headers.get("retry-after", "")))
    raise FetchFailed(f"{origin} answered {status}")


def _retry_after(text: str) -> float:
    """Seconds, of either form of the header (RFC 9110, 10.2.3); 0 where it says nothing."""
    try:
        seconds = float(text) if text.strip().isdigit() else parsedate_to_datetime(text).timestamp() - time()
    except (TypeError, ValueError):
        return 0.0
    return min(MAX_WAIT, max(0.0, seconds))
