"""How an application speaks to a server that can do without turns of the event loop: an ASGI extension of ours.

A server that offers it has an object under `scope["extensions"][DIRECT]`; any other is spoken to in plain ASGI.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

DIRECT: Final = "llmlb.direct"


class Direct(Protocol):
    """One request's way back. Nothing here waits; what a client that has gone is sent is dropped."""

    def on_hang_up(self, call: Callable[[], None] | None) -> bool:
        """`call` is called when the client has gone; None: to be told no more. Returns: whether it has gone already."""

    def start(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """The head of an answer. It goes out with the first piece of the body."""

    def piece(self, body: bytes) -> bool:
        """A piece of the body, of which more will come. Returns: whether the client keeps up; if not, `send` waits."""

    def answer(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        """A whole answer. One of the headers is its length."""


def direct_of(scope: Any) -> Direct | None:
    """What the server offers of this for a request."""
    found: Direct | None = scope.get("extensions", _NONE).get(DIRECT)
    return found


_NONE: Final[dict[str, Any]] = {}
