"""Noticing that the client has gone, while its request waits or runs: then the node stops too."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from routing.gateway.exchange import Receive


class HangUp:
    """Inside `async with`, a disconnect of the client cancels the body; afterwards `seen` tells that it was this.

    The body of the request must have been read: from then on `receive` has nothing to say but `http.disconnect`.
    A sibling task waits for that, because the request itself is waiting for something else.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._watcher: asyncio.Task[None] | None = None
        self._watched: asyncio.Task[object] | None = None
        self.seen = False

    async def __aenter__(self) -> Self:
        self._watched = asyncio.current_task()
        self._watcher = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        assert self._watcher is not None
        assert self._watched is not None
        self._watcher.cancel()
        if self.seen and isinstance(error, asyncio.CancelledError):
            return self._watched.uncancel() == 0
        return False

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.seen = True
        assert self._watched is not None
        self._watched.cancel()
