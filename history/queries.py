"""Reading the history: pages of requests, one request, totals of tokens."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

from django.db.models import F, QuerySet, Sum
from django.db.models.functions import TruncMonth
from django.utils import timezone

from history import partitions
from history.filters import Filters
from history.models import RequestRecord, TokenTotal

PAGE_SIZES: Final = (10, 25, 50, 100)
DEFAULT_PAGE_SIZE: Final = 50
EXPORT_CHUNK: Final = 1000
# Up to so many matches are looked up at once: their number and every page of them cost one query.
_MATCHES_AT_ONCE: Final = 10_000
# In a larger table it is as many as lead on from the page that is asked for, and never more than the last of these.
_MATCHES_OF_A_LARGE_TABLE: Final = 500
_MATCHES_AT_MOST: Final = 100_000
# A table of up to so many rows is counted to the last match; a larger one would take seconds.
_COUNTED_TO_THE_END: Final = 2_000_000
# Where finding the first of them took longer than this (seconds), there was no index for it: the rest is not counted.
_SLOW_TO_FIND: Final = 0.1


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the requests that fit, newest first. `is_exact` False: there are more than `total`."""

    records: list[RequestRecord]
    total: int
    is_exact: bool
    number: int
    per_page: int

    @property
    def total_pages(self) -> int:
        return -(-self.total // self.per_page)

    @property
    def has_previous(self) -> bool:
        return self.number > 1 and self.total > 0

    @property
    def has_next(self) -> bool:
        return self.number < self.total_pages

    @property
    def previous_number(self) -> int:
        return self.number - 1

    @property
    def next_number(self) -> int:
        return self.number + 1

    @property
    def label(self) -> str:
        """`X / Y`, or `- / -` where there is nothing (SPEC-026b2cde)."""
        if not self.total:
            return "- / -"
        return f"{self.number} / {self.total_pages}{'' if self.is_exact else '+'}"


def page_size(text: str | int | None) -> int:
    """One of `PAGE_SIZES`; anything else is the default."""
    try:
        size = int(text or DEFAULT_PAGE_SIZE)
    except ValueError:
        return DEFAULT_PAGE_SIZE
    return size if size in PAGE_SIZES else DEFAULT_PAGE_SIZE


def find_page(
    filters: Filters, *, number: int = 1, per_page: int = DEFAULT_PAGE_SIZE, offset: int | None = None
) -> Page:
    """Page `number` (from 1; beyond the last means the last) of what fits `filters`.

    With an `offset` it is the `per_page` requests after so many instead, and none beyond the last.
    """
    until = number * per_page if offset is None else offset + per_page
    found = _AllRecords() if filters.is_empty else _Matches(filters.records(), until=until)
    pages = -(-found.total // per_page)
    number = max(1, min(number, pages))
    if offset is not None:
        number = offset // per_page + 1
    records = found.slice((number - 1) * per_page if offset is None else offset, per_page)
    return Page(records, found.total, found.is_exact, number, per_page)


class _AllRecords:
    """Every request there is."""

    def __init__(self) -> None:
        self._spans = partitions.spans()
        span = _length(self._spans)
        is_small = span <= _COUNTED_TO_THE_END
        self.total = RequestRecord.objects.count() if is_small else span
        self.is_exact = True  # retention removes the oldest, so a large table's ids have no gaps worth counting
        self._has_gaps = is_small and self.total < span

    def slice(self, offset: int, limit: int) -> list[RequestRecord]:
        newest_first = RequestRecord.objects.order_by("-id")
        if self._has_gaps:
            return list(newest_first[offset : offset + limit])
        return list(newest_first.filter(id__lte=self._id_at(offset))[:limit])

    def _id_at(self, offset: int) -> int:
        for low, high in self._spans:
            if offset <= high - low:
                return high - offset
            offset -= high - low + 1
        return 0


class _Matches:
    """The requests of a filter: the newest ids at once, the rest only where somebody pages so far."""

    def __init__(self, records: QuerySet[RequestRecord], *, until: int) -> None:
        self._records = records
        spans = partitions.spans()
        is_small = _length(spans) <= _COUNTED_TO_THE_END
        at_once = _MATCHES_AT_ONCE if is_small else _enough_for(until)
        started = time.monotonic()
        self._ids: list[int] = []
        for part in [records] if is_small else _by_day(records, spans):
            self._ids += part.values_list("id", flat=True)[: at_once + 1 - len(self._ids)]
            if len(self._ids) > at_once:
                break
        took = time.monotonic() - started
        complete = len(self._ids) <= at_once
        can_count = took < _SLOW_TO_FIND and is_small
        self.is_exact = complete or can_count
        self.total = records.count() if can_count and not complete else min(len(self._ids), at_once)

    def slice(self, offset: int, limit: int) -> list[RequestRecord]:
        if offset + limit > len(self._ids) < self.total:
            return list(self._records[offset : offset + limit])
        ids = self._ids[offset : offset + limit]
        found = RequestRecord.objects.in_bulk(ids)
        return [found[pk] for pk in ids if pk in found]


def _enough_for(until: int) -> int:
    """Matches to look up in a large table, for a page that ends at the one numbered `until`: some more than that."""
    steps = until // _MATCHES_OF_A_LARGE_TABLE + 1
    return min(steps * _MATCHES_OF_A_LARGE_TABLE, _MATCHES_AT_MOST)


def _by_day(records: QuerySet[RequestRecord], spans: list[tuple[int, int]]) -> list[QuerySet[RequestRecord]]:
    """The same day by day, newest first: each is planned by itself, and none is read that is not needed."""
    return [records.filter(id__gte=low, id__lte=high) for low, high in spans]


def _length(spans: list[tuple[int, int]]) -> int:
    return sum(high - low + 1 for low, high in spans)


def chunks(filters: Filters, size: int = EXPORT_CHUNK) -> Iterator[list[RequestRecord]]:
    """All that fits, newest first, `size` at a time: each step as cheap at the end as at the start."""
    for part in _by_day(filters.records(), partitions.spans()):
        part = part.order_by("-id")
        chunk = list(part[:size])
        while chunk:
            yield chunk
            chunk = list(part.filter(id__lt=chunk[-1].pk)[:size])


def get_record(pk: int) -> RequestRecord | None:
    """One request with its attempts and bodies."""
    return RequestRecord.objects.select_related("payload").prefetch_related("attempts").filter(pk=pk).first()


# --- token totals -------------------------------------------------------------------------------------------------

_SUMS: Final = {
    "total_input_tokens": Sum("prompt_tokens", default=0),
    "total_output_tokens": Sum("completion_tokens", default=0),
    "total_tokens": Sum(F("prompt_tokens") + F("completion_tokens"), default=0),
    "request_count": Sum("requests", default=0),
    "failure_count": Sum("failures", default=0),
    "estimated_count": Sum("estimated_requests", default=0),
}
Totals = dict[str, Any]


def totals(**only: Any) -> Totals:
    """Requests and tokens since the beginning. `only` are columns of `TokenTotal` and the values they must have."""
    return TokenTotal.objects.filter(**only).aggregate(**_SUMS)


def daily_totals(days: int, **only: Any) -> list[Totals]:
    """The same for each of the last `days` days (UTC), today last; a quiet day is a row of zeros."""
    today = timezone.now().date()
    first = today - timedelta(days=days - 1)
    by_day = _by(TokenTotal.objects.filter(day__gte=first, **only), "day")
    dates = (first + timedelta(days=number) for number in range(days))
    return [{"date": day.isoformat(), **by_day.get(day, _nothing())} for day in dates]


def monthly_totals(months: int, **only: Any) -> list[Totals]:
    """The same for each of the last `months` months, this one last."""
    starts = list(_month_starts(timezone.now().date(), months))
    rows = TokenTotal.objects.filter(day__gte=starts[0], **only)
    by_month = _by(rows.annotate(month=TruncMonth("day")), "month")
    return [{"month": f"{start:%Y-%m}", **by_month.get(start, _nothing())} for start in starts]


def _by(rows: QuerySet[TokenTotal], name: str) -> dict[date, Totals]:
    sums: Iterable[Totals] = rows.order_by().values(name).annotate(**_SUMS)
    return {row[name]: {key: value for key, value in row.items() if key != name} for row in sums}


def _month_starts(today: date, months: int) -> Iterator[date]:
    last = today.year * 12 + today.month - 1
    for number in range(last - months + 1, last + 1):
        yield date(number // 12, number % 12 + 1, 1)


def _nothing() -> Totals:
    return dict.fromkeys(_SUMS, 0)
