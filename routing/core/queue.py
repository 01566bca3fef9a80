"""Who waits for a node, and who is next: round-robin over the keys, in order within one (SPEC-da253baa)."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

Grant = TypeVar("Grant")

# How many keys' last turns are remembered. More keys than this waiting at once still share fairly among themselves.
REMEMBERED_KEYS: Final = 10_000


@dataclass(slots=True, eq=False)
class Waiting(Generic[Grant]):
    """One request in the queue. `grant` is called once, with what it waited for."""

    key: int
    model: str
    grant: Callable[[Grant], None]
    tried: frozenset[int] = field(default_factory=frozenset)
    affinity: int = 0


class FairQueue(Generic[Grant]):
    """A single queue over all models and nodes. The key that was served longest ago is next.

    A key served without waiting has had its turn too: A×5 then B×2 on one free slot is served A B A B A A A.
    """

    def __init__(self) -> None:
        self._by_key: dict[int, deque[Waiting[Grant]]] = {}
        self._last_turn: OrderedDict[int, int] = OrderedDict()
        self._latest: int | None = None  # whose turn was the last of all
        self._turns = 0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Waiting[Grant]]:
        for waiting in self._by_key.values():
            yield from waiting

    def push(self, waiting: Waiting[Grant]) -> None:
        self._by_key.setdefault(waiting.key, deque()).append(waiting)
        self._size += 1

    def remove(self, waiting: Waiting[Grant]) -> bool:
        """Take it out, wherever it stands. False if it was not waiting (any more)."""
        line = self._by_key.get(waiting.key)
        if line is None or waiting not in line:
            return False
        line.remove(waiting)
        self._size -= 1
        if not line:
            del self._by_key[waiting.key]
        return True

    def took_turn(self, key: int) -> None:
        """Remember that a request of this key was served just now."""
        if key == self._latest:  # it stands last already
            return
        self._latest = key
        self._turns += 1
        self._last_turn[key] = self._turns
        self._last_turn.move_to_end(key)
        if len(self._last_turn) > REMEMBERED_KEYS:
            self._last_turn.popitem(last=False)

    def serve(self, choose: Callable[[Waiting[Grant]], Grant | None]) -> int:
        """Grant to as many as `choose` finds something for, fairly. Returns how many were served."""
        served = 0
        while self._serve_one(choose):
            served += 1
        return served

    def _serve_one(self, choose: Callable[[Waiting[Grant]], Grant | None]) -> bool:
        hopeless: set[tuple[str, frozenset[int]]] = set()
        for key in sorted(self._by_key, key=lambda key: self._last_turn.get(key, 0)):
            for waiting in self._by_key[key]:
                wish = (waiting.model, waiting.tried)
                if wish in hopeless:
                    continue
                found = choose(waiting)
                if found is None:
                    hopeless.add(wish)
                    continue
                self.remove(waiting)
                self.took_turn(key)
                waiting.grant(found)
                return True
        return False
