"""The dashboard's live hints: that something of a topic changed, never what. Pages fetch what they show.

Events are published in any thread (workers, request threads, the relay of the scaled profile); `Hints` hands them to
the server's loop and tells every open dashboard of this process. The relay has already brought the other processes'
events here, so no channel layer is needed in between.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Final, Protocol

from llmlb_site.lib.events import Payload, Topic, subscribe

log = logging.getLogger("llmlb.dashboard")

TOPICS: Final[tuple[Topic, ...]] = ("nodes", "models", "keys", "history", "exclusions", "downloads")
PAUSE_SECONDS: Final = 0.25


class Listener(Protocol):
    """An open dashboard."""

    async def tell(self, news: dict[str, int]) -> None:
        """Send a hint for each topic; close instead if its person may no longer look."""


_listeners: set[Listener] = set()


def listen(listener: Listener) -> None:
    _listeners.add(listener)


def forget(listener: Listener) -> None:
    _listeners.discard(listener)


class Hints:
    """Carries events to the open dashboards, at most once per topic in `PAUSE_SECONDS`, the last one never lost."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._unsubscribe: list[Callable[[], None]] = []
        self._revisions: Counter[str] = Counter()
        self._changed: set[str] = set()
        self._flusher: asyncio.Task[None] | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to listen to events; `loop` is the one that the consumers run on."""
        self._loop = loop
        self._unsubscribe = [subscribe(topic, self._hear) for topic in TOPICS]

    def stop(self) -> None:
        """Stop listening. To be called on the loop."""
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        self._unsubscribe = []
        self._loop = None
        if self._flusher is not None:
            self._flusher.cancel()

    def _hear(self, topic: str, payload: Payload) -> None:
        loop = self._loop
        if loop is None or not _listeners:
            return
        try:
            loop.call_soon_threadsafe(self._note, topic)
        except RuntimeError:
            log.debug("the server's loop has ended; nobody is looking any more")

    def _note(self, topic: str) -> None:
        self._revisions[topic] += 1
        self._changed.add(topic)
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.get_running_loop().create_task(self._flush())

    async def _flush(self) -> None:
        while self._changed:
            news = {topic: self._revisions[topic] for topic in self._changed}
            self._changed.clear()
            await asyncio.gather(*(listener.tell(news) for listener in tuple(_listeners)), return_exceptions=True)
            await asyncio.sleep(PAUSE_SECONDS)
