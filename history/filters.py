"""Which requests are asked for: plain data, made by the page's form and by the API alike."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from functools import reduce
from operator import or_
from typing import Final

from django.db.models import BooleanField, Count, Max, Min, Q, QuerySet
from django.db.models.expressions import RawSQL

from history import partitions
from history.choices import Outcome
from history.models import RequestRecord, SearchTerm
from history.terms import FIELDS

# With more terms than this, rows are searched themselves; with more rows, their ids are not looked up first.
_TERMS_AT_ONCE: Final = 300
_BOUNDED_AT_ONCE: Final = 100_000
# As SQLite must read them, to the letter, to know that an index of failures alone has what is asked for.
FAILED: Final = Q(RawSQL("NOT (outcome = 'success')", [], BooleanField()))
NOT_200: Final = Q(RawSQL("NOT (status = 200)", [], BooleanField()))
_FAILURES: Final = [outcome for outcome in Outcome.values if outcome != Outcome.SUCCESS]


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """All that are given must hold. An empty value means any.

    `status` is a number (`503`), a class (`4xx`), `success` or `error`; `q` is a part of the model, error or client
    address, or a request id; times are inclusive.
    """

    model: str = ""
    model_exact: str = ""
    node_id: int | None = None
    api_key_id: int | None = None
    outcome: str = ""
    status: str = ""
    kind: str = ""
    stream: bool | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    request_id: str = ""
    client_ip: str = ""
    q: str = ""

    @property
    def is_empty(self) -> bool:
        return not any(self._is_given(field.name) for field in fields(self))

    def _is_given(self, name: str) -> bool:
        return getattr(self, name) not in (None, "")

    def records(self) -> QuerySet[RequestRecord]:
        """What fits, newest first.

        PostgreSQL finds a time range fastest in the order of time, and knows when another index is better. SQLite does
        not, and sorts everything that fits another filter; its ids are in the order of time but for a few seconds.
        """
        given = Q(**self._exact()) & self._outcome() & self._status() & self._texts() & self._time()
        by_time = partitions.are_used() and (self.start_time or self.end_time)
        return RequestRecord.objects.filter(given).order_by(*(["-started_at"] if by_time else []), "-id")

    def _exact(self) -> dict[str, object]:
        columns = {
            "model": self.model_exact,
            "node_id": self.node_id,
            "api_key_id": self.api_key_id,
            "kind": self.kind,
            "stream": self.stream,
            "request_id": self.request_id,
            "client_ip": self.client_ip,
        }
        return {column: value for column, value in columns.items() if value not in (None, "")}

    def _outcome(self) -> Q:
        given = Q(outcome=self.outcome) if self.outcome else Q()
        return given & FAILED if self.outcome in _FAILURES else given

    def _status(self) -> Q:
        match self.status.lower():
            case "":
                return Q()
            case "success":
                return Q(outcome=Outcome.SUCCESS)
            case "error":  # listed, not negated: the index serves a list
                return Q(outcome__in=_FAILURES) & FAILED
            case text if text.endswith("xx"):
                given = Q(status__gte=int(text[0]) * 100, status__lt=int(text[0]) * 100 + 100)
            case text:
                given = Q(status=int(text))
        return given if text in ("200", "2xx") else given & NOT_200

    def _texts(self) -> Q:
        found = _containing(self.model, ["model"]) if self.model else Q()
        return found & (_containing(self.q, list(FIELDS)) | Q(request_id=self.q)) if self.q else found

    def _time(self) -> Q:
        """The time range, and a range of ids in which it lies."""
        within = Q()
        if self.start_time:
            within &= Q(started_at__gte=self.start_time)
        if self.end_time:
            within &= Q(started_at__lte=self.end_time)
        if not within:
            return within
        return within & (self._days() if partitions.are_used() else _ids(within))

    def _days(self) -> Q:
        """Ids say their day, but for those from before there were days."""
        ids = Q()
        if self.start_time:
            first = partitions.first_id(partitions.day_of(self.start_time))
            ids &= Q(id__gte=first) | Q(id__lt=partitions.IDS_A_DAY)
        if self.end_time:
            ids &= Q(id__lt=partitions.first_id(partitions.day_of(self.end_time) + timedelta(days=1)))
        return ids


def _ids(within: Q) -> Q:
    """The smallest and the largest id in a time range, where it is short enough for them to be worth finding.

    It lets the other indexes help, whose entries are in the order of ids.
    """
    rows = RequestRecord.objects.filter(within).order_by("started_at")[: _BOUNDED_AT_ONCE + 1]
    ends = rows.aggregate(first=Min("id"), last=Max("id"), number=Count("id"))
    if ends["number"] > _BOUNDED_AT_ONCE:
        return Q()
    return Q(id__gte=ends["first"] or 0, id__lte=ends["last"] or 0)


def _containing(text: str, names: list[str]) -> Q:
    """Rows with `text` in one of these columns, whatever its case: the terms that contain it are found first."""
    terms = SearchTerm.objects.filter(field__in=names, text__icontains=text).values_list("field", "text").distinct()
    found = list(terms[: _TERMS_AT_ONCE + 1])
    if len(found) > _TERMS_AT_ONCE:  # in so many of them that rows are found soon
        return reduce(or_, (Q(**{f"{name}__icontains": text}) for name in names))
    by_field: dict[str, list[str]] = {}
    for field, term in found:
        by_field.setdefault(field, []).append(term)
    return reduce(or_, (Q(**{f"{field}__in": terms}) for field, terms in by_field.items()), Q(pk__in=[]))


def is_status(text: str) -> bool:
    """Whether `Filters.status` may be `text`."""
    lowered = text.lower()
    return lowered in ("", "success", "error") or (
        len(text) == 3 and text[0] in "12345" and (lowered[1:] == "xx" or (text.isascii() and text.isdigit()))
    )
