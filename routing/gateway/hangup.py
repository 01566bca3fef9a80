"""Noticing that the client has gone, while its request waits or runs: then the node stops too."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from routing.gateway.exchange import Exchange
from routing.gateway.intake import ClientGone


class HangUp:
    """Inside `with`, a disconnect of the client cancels the body; afterwards `seen` tells that it was this.

    Raises: ClientGone on entering, where it has gone before.

    The body of the request must have been read: from then on `receive` has nothing to say but `http.disconnect`.
    A server that can (`Direct`) calls us; with any other a sibling task waits for the message, because the request
    itself is waiting for something else.
    """

    seen = False
    _watched: asyncio.Task[object] | None = None
    _watcher: asyncio.Task[None] | None = None

    def __init__(self, exchange: Exchange) -> None:
        self._receive = exchange.receive
        self._direct = exchange.direct

    def __enter__(self) -> Self:
        self._watched = asyncio.current_task()
        if self._direct is None:
            self._watcher = asyncio.create_task(self._watch())
        elif self._direct.on_hang_up(self._cancel):
            self._direct.on_hang_up(None)
            raise ClientGone  # cancelling would let the body run to where it first waits, and a node be asked
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if self._direct is not None:
            self._direct.on_hang_up(None)
        elif self._watcher is not None:
            self._watcher.cancel()
        if self.seen and isinstance(error, asyncio.CancelledError):
            assert self._watched is not None
            return self._watched.uncancel() == 0
        return False

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._cancel()

    def _cancel(self) -> None:
        self.seen = True
        assert self._watched is not None
        self._watched.cancel()
