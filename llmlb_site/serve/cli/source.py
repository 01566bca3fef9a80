"""What both sources tell, in the words of the management API."""

from __future__ import annotations

from typing import Any, Protocol

Row = dict[str, Any]


class Source(Protocol):
    """All raise CommandFailed, or NotReachable."""

    def state(self) -> Row:
        """`state` (`ready`, `degraded`, …, `not running`), `version`, `url`."""
        ...

    def nodes(self) -> list[Row]:
        """As `/api/nodes` lists them."""
        ...

    def keys(self) -> list[Row]:
        """As `/api/api-keys` lists them."""
        ...
