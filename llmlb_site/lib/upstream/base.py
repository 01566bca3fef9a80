"""The seam to a node: send one request, read the answer as it comes, close. Small enough to fake."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Protocol
from urllib.parse import urlsplit

Headers = list[tuple[bytes, bytes]]
PoolKey = tuple[str, int, bool]


class BodySource(Protocol):
    """A request body that is too large to hold in memory. It can be sent more than once: to the next node."""

    @property
    def length(self) -> int:
        """Bytes."""

    def pieces(self) -> Iterator[bytes]:
        """From the beginning, in pieces of modest size."""


# Inference has a dozen paths; paths with ids in them need not be kept.
MAX_OPENINGS: Final = 64


@dataclass(frozen=True)
class Target:
    """Where a node listens, and what every request to it carries. Made once a node, not once a request.

    `auth` are the header lines that carry a key, where that is not a Bearer token.
    """

    base_url: str
    api_key: str = field(default="", repr=False)
    auth: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @cached_property
    def secure(self) -> bool:
        return urlsplit(self.base_url).scheme == "https"

    @cached_property
    def host(self) -> str:
        return urlsplit(self.base_url).hostname or ""

    @cached_property
    def port(self) -> int:
        return urlsplit(self.base_url).port or (443 if self.secure else 80)

    @cached_property
    def prefix(self) -> str:
        return urlsplit(self.base_url).path.rstrip("/")

    @cached_property
    def netloc(self) -> str:
        return urlsplit(self.base_url).netloc

    @cached_property
    def pool_key(self) -> PoolKey:
        """Targets with the same one can share connections: host, port, TLS."""
        return (self.host, self.port, self.secure)

    def opening(self, method: str, path: str) -> bytes:
        """The request line and the header lines that are the same for every request to this path."""
        opening = self._openings.get((method, path))
        if opening is None:
            opening = f"{method} {self.prefix}{path} HTTP/1.1\r\n".encode("ascii") + self.head
            if len(self._openings) < MAX_OPENINGS:
                self._openings[method, path] = opening
        return opening

    @cached_property
    def _openings(self) -> dict[tuple[str, str], bytes]:
        return {}

    @cached_property
    def head(self) -> bytes:
        """The header lines that are the same for every request to this node."""
        lines = [f"Host: {self.netloc}", "Accept-Encoding: identity"]
        if self.api_key:
            lines.append(f"Authorization: Bearer {self.api_key}")
        lines += [f"{name}: {value}" for name, value in self.auth]
        return ("\r\n".join(lines) + "\r\n").encode("latin-1", "replace")


class UpstreamAnswer(Protocol):
    """A node's answer: the head is here, the body comes in pieces."""

    status: int
    headers: Headers

    def whole(self) -> bytes | None:
        """What has not been read of the body, if all of it is here already; else None."""

    async def read(self) -> bytes:
        """The next bytes of the body, as soon as there are any; b"" at its end.

        Raises: BrokenFault, MalformedFault, TimeoutFault.
        """

    async def pump(self, sink: Callable[[bytes], bool]) -> bool:
        """Hand over the body's bytes to `sink` as they come, without a turn of the event loop in between.

        Returns: True when `sink` said False: it wants no more for now. False at the end of the body.

        Raises: BrokenFault, MalformedFault, TimeoutFault, and what `sink` raises.
        """

    def abort(self) -> None:
        """No more of it is wanted, though somebody may still read: they get what is here, then BrokenFault."""

    def close(self) -> None:
        """Done with it. Unless the body was read to its end, the connection is aborted and the node stops."""


class Upstream(Protocol):
    """Sends requests to nodes."""

    async def send(
        self, target: Target, method: str, path: str, headers: Headers, body: bytes | BodySource, *, silence: float
    ) -> UpstreamAnswer:
        """Send, and wait for the head of the answer. `silence` is the longest time without a byte, in seconds.

        Cancelling the call aborts the connection.

        Raises: ConnectFault, SendFault, TimeoutFault, MalformedFault.
        """

    async def aclose(self) -> None:
        """Close every connection."""
