"""How many requests may be tried again: where every node answers with errors, twice the load helps nobody."""

from __future__ import annotations

from typing import Final

# What one request adds to the budget, and the most that it holds: as many as a large node has in flight when it breaks.
SHARE: Final = 0.1
MOST: Final = 256.0


class RetryBudget:
    """For one tenth of the requests, and a burst of `MOST`. It starts full."""

    def __init__(self) -> None:
        self._left = MOST

    def earn(self) -> None:
        """A request has come."""
        if self._left < MOST:
            self._left += SHARE

    def spend(self) -> bool:
        """Whether a request may be tried again; counts it if so."""
        if self._left < 1:
            return False
        self._left -= 1
        return True
