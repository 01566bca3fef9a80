"""What runs beside the listener, and whether it does: each part reports, /readyz and the dashboard read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Part:
    """One background part of this process, e.g. the Celery worker. `detail` is for operators, without secrets."""

    name: str
    ok: bool
    detail: str


_parts: Final[dict[str, Part]] = {}


def report(name: str, *, ok: bool, detail: str = "") -> None:
    """State how a part is; safe from any thread. The last word counts."""
    _parts[name] = Part(name, ok, detail)


def forget(name: str) -> None:
    """The part was stopped on purpose and is no longer expected to run."""
    _parts.pop(name, None)


def parts() -> tuple[Part, ...]:
    """Every part that this process runs, in the order in which they first reported."""
    return tuple(_parts.copy().values())


def failing() -> tuple[Part, ...]:
    return tuple(part for part in parts() if not part.ok)
