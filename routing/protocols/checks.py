"""Checks of single parameters that several APIs share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from routing.core.errors import parameter_invalid


def check_choice(name: str, value: Any, allowed: Sequence[str]) -> None:
    """Raises: Refusal (400) that lists what is allowed. Absent is always allowed."""
    if value is not None and value not in allowed:
        raise parameter_invalid(name, f"'{name}' must be one of {', '.join(allowed)}.")


def check_text(name: str, value: Any, longest: int) -> None:
    """Raises: Refusal (400), unless it is a text of 1 to `longest` characters."""
    if not isinstance(value, str) or not value:
        raise parameter_invalid(name, f"'{name}' must be a non-empty string.")
    if len(value) > longest:
        message = f"'{name}' has {len(value)} characters, but may have at most {longest}."
        raise parameter_invalid(name, message, code="string_above_max_length")
