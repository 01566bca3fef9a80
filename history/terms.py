"""The few texts that occur in many requests. Pure.

A part of a text is looked for among the texts that there are, of which a day has hundreds, and not in millions of rows.
So it does not matter how short it is or in which script.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date
from typing import Final

from history.entries import RequestEntry

# What is searched, and how much of it its column holds.
FIELDS: Final = {"model": 300, "error_code": 60, "error_message": 300, "client_ip": 45}
_REMEMBERED: Final = 50_000

Source = tuple[date, str, str, str, str]
"""A day, and the texts of one of its requests, in the order of `FIELDS`."""
KnownTerms = set[Source]


def sources_of(entries: Iterable[RequestEntry]) -> set[Source]:
    return {
        (entry.started_at.astimezone(UTC).date(), entry.model, entry.error_code, entry.error_message, entry.client_ip)
        for entry in entries
    }


def terms_of(sources: Iterable[Source]) -> list[tuple[date, str, str]]:
    """Day, field and text; sorted, so that two writers lock rows in the same order."""
    return sorted(
        {
            (day, field, text[:length])
            for day, *texts in sources
            for (field, length), text in zip(FIELDS.items(), texts, strict=True)
            if text
        }
    )


def remember(known: KnownTerms, sources: set[Source]) -> None:
    """The database has these now; the memory of it is bounded, since clients make up names."""
    if len(known) + len(sources) > _REMEMBERED:
        known.clear()
    known |= sources
