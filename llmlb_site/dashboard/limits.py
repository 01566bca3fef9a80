"""What a key has used of its limits, for its page and for the API."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from access.models import ApiKey
from routing import live
from routing.budgets import SpentTokens
from routing.core.limits import Limit, Reading
from routing.snapshot import limit_of


@dataclass(frozen=True, slots=True)
class Use:
    """One number of one limit: `name` is that of the API."""

    name: str
    label: str
    used: int
    allowed: int


@dataclass(frozen=True, slots=True)
class LimitUse:
    """One limit; `model` empty: over all models."""

    model: str
    uses: tuple[Use, ...]


@dataclass(frozen=True, slots=True)
class KeyUse:
    """What a key has used. Tokens are those of the history, or of the gateway's own count where it is ahead of it."""

    tokens_today: int
    tokens_this_month: int
    limits: tuple[LimitUse, ...]


def use_of(key: ApiKey) -> KeyUse:
    limits = [limit_of(row) for row in key.limits.all()]
    # The first stands for the key as a whole, whether it is limited or not.
    known = SpentTokens().read([Limit(key.pk), *limits], lambda name: name)
    readings: Sequence[Reading] = live.use_of(limits) or [Reading()] * len(limits)
    today, month = known[0].day, known[0].month
    found = []
    for limit, reading, tokens in zip(limits, readings, known[1:], strict=True):
        day_used, month_used = max(reading.day, tokens.day), max(reading.month, tokens.month)
        found.append(LimitUse(limit.model, tuple(_uses(limit, reading, day_used, month_used))))
        if not limit.model:
            today, month = max(today, day_used), max(month, month_used)
    return KeyUse(today, month, tuple(found))


def as_json(use: KeyUse) -> dict[str, Any]:
    return {
        "tokens_today": use.tokens_today,
        "tokens_this_month": use.tokens_this_month,
        "limits": [
            {"model": each.model, **{of.name: {"limit": of.allowed, "used": of.used} for of in each.uses}}
            for each in use.limits
        ],
    }


def _uses(limit: Limit, reading: Reading, day: int, month: int) -> Iterator[Use]:
    if limit.requests:
        yield Use("requests_per_minute", _("Requests in the last minute"), reading.requests, limit.requests)
    if limit.tokens:
        yield Use("tokens_per_minute", _("Tokens in the last minute"), reading.tokens, limit.tokens)
    if limit.concurrent:
        yield Use("concurrent_requests", _("Requests at once"), reading.running, limit.concurrent)
    if limit.day:
        yield Use("tokens_per_day", _("Tokens today (UTC)"), day, limit.day)
    if limit.month:
        yield Use("tokens_per_month", _("Tokens this month (UTC)"), month, limit.month)
