"""Whether the history really has what passed: what is not written costs nothing, and would be no fair figure."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Final

WRITTEN_SECONDS: Final = 10.0
POLL_SECONDS: Final = 0.25


class Kept:
    """Looks into llmlb's own database while it runs; one for each run."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._last = self._number("SELECT coalesce(max(id), 0) FROM history_requestrecord")

    def percent(self, requests: int) -> dict[str, float]:
        """Of so many requests since then: rows and bodies that are there. Waits a little for the last ones."""
        deadline = time.monotonic() + WRITTEN_SECONDS
        while (rows := self._count("history_requestrecord", "id")) < requests and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        bodies = self._count("history_requestpayload", "record_id")
        whole = max(1, requests)
        return {
            "rows_kept_percent": min(100.0, 100 * rows / whole),
            "bodies_kept_percent": min(100.0, 100 * bodies / whole),
        }

    def _count(self, table: str, column: str) -> int:
        return self._number(f"SELECT count(*) FROM {table} WHERE {column} > {self._last}")

    def _number(self, query: str) -> int:
        with sqlite3.connect(f"file:{self._database}?mode=ro", uri=True, timeout=10) as connection:
            found: int = connection.execute(query).fetchone()[0]
        connection.close()
        return found
