"""What keys with a token budget have used so far: from the history's totals, which are kept for ever.

The limiters count ahead of it. It is what they start from, and what they are held to where a count was lost.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import Final

from django.db.models import F, Sum

from history.models import TokenTotal
from routing.core.limits import DAY, Limit, Period, period_of
from routing.state.limits import Tokens

_EPOCH: Final = date(1970, 1, 1)
Resolve = Callable[[str], str]
# Tokens by key and model.
Spent = Mapping[tuple[int, str], int]


class SpentTokens:
    """Reads today's totals each time, and those of the days of the month before once."""

    def __init__(self) -> None:
        self._earlier: tuple[Period, frozenset[int], Spent] | None = None

    def read(self, limits: Sequence[Limit], resolve: Resolve) -> list[Tokens]:
        """For each of `limits`. `resolve` gives the model behind an alias, as totals name it."""
        period = period_of(int(time.time() * 1000) // DAY)
        keys = frozenset(limit.key_id for limit in limits)
        today = _EPOCH + timedelta(days=period.day)
        of_today = _spent(keys, today, today)
        if self._earlier is None or self._earlier[:2] != (period, keys):
            self._earlier = (period, keys, _spent(keys, today.replace(day=1), today - timedelta(days=1)))
        before = self._earlier[2]
        return [_tokens(limit, period, of_today, before, resolve) for limit in limits]


def _tokens(limit: Limit, period: Period, of_today: Spent, before: Spent, resolve: Resolve) -> Tokens:
    model = resolve(limit.model) if limit.model else ""
    day = of_today.get((limit.key_id, model), 0)
    return Tokens(limit.id, period, day, day + before.get((limit.key_id, model), 0))


def _spent(keys: Iterable[int], first: date, last: date) -> Spent:
    """Both per model and, under the empty name, over all of them."""
    spent: defaultdict[tuple[int, str], int] = defaultdict(int)
    rows = (
        TokenTotal.objects.filter(day__gte=first, day__lte=last, api_key_id__in=keys)
        .order_by()
        .values_list("api_key_id", "model")
        .annotate(tokens=Sum(F("prompt_tokens") + F("completion_tokens")))
    )
    for key_id, model, tokens in rows:
        spent[key_id, model] += tokens
        if model:
            spent[key_id, ""] += tokens
    return spent
