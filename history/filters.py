"""Which requests are asked for: plain data, made by the page's form and by the API alike."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Final

from django.db.models import Max, Min, Q, QuerySet

from history.choices import Outcome
from history.models import RequestRecord

_FAILURES: Final = [outcome for outcome in Outcome.values if outcome != Outcome.SUCCESS]


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """All that are given must hold. An empty value means any.

    `status` is a number (`503`), a class (`4xx`), `success` or `error`; `q` is looked for in model, error, request id
    and client address; times are inclusive.
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
        """What fits, newest first."""
        given = Q(**self._exact()) & self._status() & self._texts() & self._time()
        return RequestRecord.objects.filter(given).order_by("-id")

    def _exact(self) -> dict[str, object]:
        columns = {
            "model": self.model_exact,
            "node_id": self.node_id,
            "api_key_id": self.api_key_id,
            "outcome": self.outcome,
            "kind": self.kind,
            "stream": self.stream,
            "request_id": self.request_id,
            "client_ip": self.client_ip,
        }
        return {column: value for column, value in columns.items() if value not in (None, "")}

    def _status(self) -> Q:
        match self.status.lower():
            case "":
                return Q()
            case "success":
                return Q(outcome=Outcome.SUCCESS)
            case "error":  # listed, not negated: the index serves a list
                return Q(outcome__in=_FAILURES)
            case text if text.endswith("xx"):
                return Q(status__gte=int(text[0]) * 100, status__lt=int(text[0]) * 100 + 100)
            case text:
                return Q(status=int(text))

    def _texts(self) -> Q:
        found = Q(model__icontains=self.model) if self.model else Q()
        return found & _anywhere(self.q) if self.q else found

    def _time(self) -> Q:
        """The time range, and the range of ids in which it lies: that lets every other index help, in time order."""
        within = Q()
        if self.start_time:
            within &= Q(started_at__gte=self.start_time)
        if self.end_time:
            within &= Q(started_at__lte=self.end_time)
        if not within:
            return within
        ends = RequestRecord.objects.filter(within).aggregate(first=Min("id"), last=Max("id"))
        return within & Q(id__gte=ends["first"] or 0, id__lte=ends["last"] or 0)


def _anywhere(text: str) -> Q:
    """Text in any of the columns. Ignoring case is dear on PostgreSQL, so it is asked only where there is case."""
    has_case = text.lower() != text.upper()
    words = "icontains" if has_case else "contains"
    return (
        Q(**{f"model__{words}": text})
        | Q(**{f"error_message__{words}": text})
        | Q(error_code__contains=text.lower())
        | Q(client_ip__contains=text.lower())
        | Q(request_id__contains=text)
    )


def is_status(text: str) -> bool:
    """Whether `Filters.status` may be `text`."""
    lowered = text.lower()
    return lowered in ("", "success", "error") or (
        len(text) == 3 and text[0] in "12345" and (lowered[1:] == "xx" or (text.isascii() and text.isdigit()))
    )
