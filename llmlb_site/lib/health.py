"""What runs beside the listener, and whether it does: each part reports, /readyz and the dashboard read."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Final


@dataclass(frozen=True, slots=True)
class Part:
    """One background part of this process, e.g. the Celery worker. `detail` is for operators, without secrets."""

    name: str
    ok: bool
    detail: str
    until: float = float("inf")  # by the monotonic clock: who has not reported again by then is stuck


_parts: Final[dict[str, Part]] = {}


def report(name: str, *, ok: bool, detail: str = "", again_within: float = float("inf")) -> None:
    """State how a part is; safe from any thread. The last word counts, for as long as it promises to report again."""
    _parts[name] = Part(name, ok, detail, time.monotonic() + again_within)


def forget(name: str) -> None:
    """The part was stopped on purpose and is no longer expected to run."""
    _parts.pop(name, None)


def parts() -> tuple[Part, ...]:
    """Every part that this process runs, in the order in which they first reported."""
    now = time.monotonic()
    return tuple(
        part if now < part.until else replace(part, ok=False, detail=part.detail or "waits for an answer")
        for part in _parts.copy().values()
    )


def failing() -> tuple[Part, ...]:
    return tuple(part for part in parts() if not part.ok)
