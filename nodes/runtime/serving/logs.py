"""The newest log lines of the node and its engines, kept in memory for `/api/logs`, and written to standard error."""

from __future__ import annotations

import logging
import sys
from collections import deque
from datetime import UTC, datetime
from typing import Any, Final

KEPT: Final = 2000
MAX_LINE: Final = 2000
FORMAT: Final = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
# Under it are the lines of the engines, by model: "llmlb.engine.org/name".
ENGINE: Final = "llmlb.engine"


class LogRing(logging.Handler):
    """Keeps the last lines. Written from any thread."""

    def __init__(self, kept: int = KEPT) -> None:
        super().__init__()
        self._lines: deque[dict[str, Any]] = deque(maxlen=kept)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._keep(record)
        except Exception:  # as every handler does: a line that cannot be written must not fail who wrote it
            self.handleError(record)

    def _keep(self, record: logging.LogRecord) -> None:
        at = datetime.fromtimestamp(record.created, UTC)
        self._lines.append(
            {
                "timestamp": stamp(at),
                "level": record.levelname.lower(),
                "target": record.name.removeprefix("llmlb.").replace("engine.", "engine:", 1),
                "message": record.getMessage()[:MAX_LINE],
            }
        )

    def tail(self, count: int) -> list[dict[str, Any]]:
        """The newest `count` lines, oldest first."""
        lines = list(self._lines)
        return lines[-count:]


def set_up(level: str) -> LogRing:
    """Log to standard error and to the ring that is returned."""
    ring = LogRing()
    to_terminal = logging.StreamHandler(sys.stderr)
    to_terminal.setFormatter(logging.Formatter(FORMAT))
    logging.basicConfig(level=level.upper(), handlers=[to_terminal, ring], force=True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    return ring


def stamp(at: datetime) -> str:
    """RFC 3339, UTC."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def stamp_of(seconds: float) -> str:
    """RFC 3339 of seconds since the epoch."""
    return stamp(datetime.fromtimestamp(seconds, UTC))
