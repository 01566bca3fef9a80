"""Which node keeps which response: for requests that go on from it, read it or cancel it.

Not kept for ever, and not beyond a restart of what holds it (this process, or Redis): then a client sees what it sees
of any response that is no longer kept. The nodes themselves keep them in memory too.
"""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

MAX_STORED: Final = 50_000
STORED_SECONDS: Final = 24 * 3600.0
# Ids become part of a path at the node, so nothing else is taken for one.
_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,200}")


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a response is kept, and of which model it is. `at` is `time.monotonic()` seconds.

    `provider` is the cloud provider that keeps it, empty where a node does.
    """

    node_id: int
    model: str
    asked_model: str
    at: float = field(compare=False, default=0.0)
    provider: str = ""


class StoredResponses(Protocol):
    """By owner and id: what one owner's node made is not there for another, whatever the ids are."""

    def remember(
        self, owner_id: int, response_id: str, *, node_id: int, model: str, asked_model: str, provider: str = ""
    ) -> None:
        """From any thread. The oldest is forgotten for it, if there are too many. An id that is none is not kept."""

    async def find(self, owner_id: int, response_id: str) -> Stored | None:
        """None for what never was, is another's, or has been kept for `STORED_SECONDS`."""

    def forget(self, owner_id: int, response_id: str) -> None: ...


def is_id(response_id: str) -> bool:
    return _ID.fullmatch(response_id) is not None


class MemoryStored:
    """`StoredResponses` of one process."""

    def __init__(self, *, limit: int = MAX_STORED, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._stored: OrderedDict[tuple[int, str], Stored] = OrderedDict()
        self._lock = threading.Lock()  # large answers are read in a thread

    def remember(
        self, owner_id: int, response_id: str, *, node_id: int, model: str, asked_model: str, provider: str = ""
    ) -> None:
        if not is_id(response_id):
            return
        key = (owner_id, response_id)
        with self._lock:
            self._stored[key] = Stored(node_id, model, asked_model, self._clock(), provider)
            self._stored.move_to_end(key)
            while len(self._stored) > self._limit or self._is_old(next(iter(self._stored.values()))):
                self._stored.popitem(last=False)

    async def find(self, owner_id: int, response_id: str) -> Stored | None:
        with self._lock:
            stored = self._stored.get((owner_id, response_id))
        return None if stored is None or self._is_old(stored) else stored

    def forget(self, owner_id: int, response_id: str) -> None:
        with self._lock:
            self._stored.pop((owner_id, response_id), None)

    def __len__(self) -> int:
        return len(self._stored)

    def _is_old(self, stored: Stored) -> bool:
        return self._clock() - stored.at > STORED_SECONDS
