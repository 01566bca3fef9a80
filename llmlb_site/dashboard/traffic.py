"""What went through the gateway: the last hour by the minute, the latest failures, today's tokens."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from statistics import median
from typing import Final

from django.db.models import CharField, Count, F, Sum
from django.db.models.functions import Cast, Substr
from django.utils import timezone
from django.utils.translation import gettext as _

from history.choices import Outcome
from history.filters import FAILED as NOT_A_SUCCESS
from history.models import RequestRecord, TokenTotal
from llmlb_site.lib.reuse import reused_by_cost
from llmlb_site.lib.svg import Bar, nice_ceiling

FAILED: Final = (Outcome.NO_ROUTE, Outcome.NODE_ERROR, Outcome.BROKEN)
MINUTES: Final = 60
LATEST: Final = 500


@dataclass(frozen=True, slots=True)
class Minute:
    """One minute's requests. `other` are the client's own: refused for its fault, or hung up."""

    starts: datetime
    good: int
    other: int
    failed: int

    @property
    def total(self) -> int:
        return self.good + self.other + self.failed


@dataclass(frozen=True, slots=True)
class Traffic:
    """The last hour, and today's tokens (of the UTC day). Latency is the median of the latest successful requests."""

    minutes: tuple[Minute, ...]
    p50_ms: float | None
    tokens_today: int
    requests_today: int

    @property
    def total(self) -> int:
        return sum(minute.total for minute in self.minutes)

    @property
    def good(self) -> int:
        return sum(minute.good for minute in self.minutes)

    @property
    def failed(self) -> int:
        return sum(minute.failed for minute in self.minutes)

    @property
    def success_rate(self) -> float | None:
        """Of what was ours to do: a client's own mistakes count neither way. None without requests."""
        ours = self.good + self.failed
        return self.good / ours if ours else None

    @property
    def busy_minutes(self) -> list[Minute]:
        return [minute for minute in reversed(self.minutes) if minute.total]

    @property
    def scale(self) -> int:
        """What the top of the chart stands for."""
        return nice_ceiling(max((minute.total for minute in self.minutes), default=0))

    @property
    def half_scale(self) -> int:
        return self.scale // 2

    @property
    def health(self) -> str:
        """`warn` below 99 %, `bad` below 90 %, for the colour of the card."""
        rate = self.success_rate
        if rate is None or rate >= 0.99:
            return ""
        return "warn" if rate >= 0.9 else "bad"

    @property
    def bars(self) -> list[Bar]:
        return [Bar(_label(minute), minute.good, minute.other, minute.failed) for minute in self.minutes]


@reused_by_cost()
def last_hour() -> Traffic:
    now = timezone.now()
    first = now.replace(second=0, microsecond=0) - timedelta(minutes=MINUTES - 1)
    today = TokenTotal.objects.filter(day=now.date()).aggregate(
        requests=Sum("requests"), tokens=Sum(F("prompt_tokens") + F("completion_tokens"))
    )
    return Traffic(
        minutes=tuple(_minutes(first)),
        p50_ms=_p50(first),
        tokens_today=today["tokens"] or 0,
        requests_today=today["requests"] or 0,
    )


def recent_failures(limit: int = 6) -> list[RequestRecord]:
    """The latest requests that failed for reasons of ours or the nodes', newest first."""
    # One query an outcome: each reads its index backwards; asked for all three at once, SQLite walks the whole table.
    found = chain.from_iterable(
        RequestRecord.objects.filter(NOT_A_SUCCESS, outcome=outcome).order_by("-id")[:limit] for outcome in FAILED
    )
    return sorted(found, key=lambda record: record.pk, reverse=True)[:limit]


def _minutes(first: datetime) -> list[Minute]:
    # The text of a UTC time up to its minutes: the same on SQLite and PostgreSQL, and no Python call a row.
    minute = Substr(Cast("started_at", CharField()), 1, 16)
    rows = RequestRecord.objects.filter(started_at__gte=first).order_by().values_list(minute, "outcome")
    counts: dict[str, Counter[str]] = {}
    for text, outcome, number in rows.annotate(number=Count("id")):
        counts.setdefault(text, Counter())[outcome] += number
    moments = [first + timedelta(minutes=number) for number in range(MINUTES)]
    return [_minute(moment, counts.get(f"{moment:%Y-%m-%d %H:%M}", Counter())) for moment in moments]


def _minute(starts: datetime, counts: Counter[str]) -> Minute:
    failed = sum(counts[outcome] for outcome in FAILED)
    good = counts[Outcome.SUCCESS]
    return Minute(starts, good=good, other=counts.total() - good - failed, failed=failed)


def _p50(since: datetime) -> float | None:
    latest = RequestRecord.objects.filter(outcome=Outcome.SUCCESS).order_by("-id")
    durations = [ms for ms, at in latest.values_list("duration_ms", "started_at")[:LATEST] if at >= since]
    return median(durations) if durations else None


def _label(minute: Minute) -> str:
    return _("%(time)s: %(good)s succeeded, %(failed)s failed, %(other)s refused or hung up") % {
        "time": f"{minute.starts:%H:%M}",
        "good": minute.good,
        "failed": minute.failed,
        "other": minute.other,
    }
