"""`/api/dashboard/request-responses` and `/api/dashboard/stats/tokens`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, TypeVar

from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer
from rest_framework.views import APIView

from access.api.errors import ApiError
from access.callers import address_of, is_key, person_of
from access.permissions import Permission
from access.rules import ApiRules
from history import queries
from history.api import serializers
from history.detail import BodiesView, masked_view, revealed_view
from history.export import export
from history.models import RequestRecord
from history.services import reveal_payload
from llmlb_site.lib.crypto import DecryptionError

READ: Final[ApiRules] = {"GET": Permission.LOGS_READ}
Query = TypeVar("Query", bound="Serializer[Any]")


class Records(APIView):
    rules = READ

    @extend_schema(
        operation_id="dashboard_request_responses_list",
        parameters=[serializers.ListQuery],
        responses=serializers.RecordPage,
    )
    def get(self, request: Request) -> Response:
        """Requests, newest first, without their bodies."""
        wanted = _valid(serializers.ListQuery, request)
        page = queries.find_page(
            wanted.filters(),
            number=wanted.number(),
            per_page=wanted.size(),
            offset=wanted.validated_data.get("offset"),
        )
        return Response(
            {
                "records": serializers.Record(page.records, many=True).data,
                "total": page.total,
                "total_count": page.total,
                "total_is_exact": page.is_exact,
                "page": page.number,
                "per_page": page.per_page,
                "total_pages": page.total_pages,
            }
        )


class RecordView(APIView):
    rules = READ

    @extend_schema(parameters=[serializers.RevealQuery], responses=serializers.RecordDetail)
    def get(self, request: Request, pk: int) -> Response:
        """One request with its attempts and its bodies, masked unless an administrator reveals them."""
        reveal = _valid(serializers.RevealQuery, request).validated_data["reveal"]
        record = queries.get_record(pk)
        if record is None:
            raise ApiError(404, "not_found", "There is no such request, or it is not kept any more.")
        bodies = _revealed(request, record) if reveal else masked_view(record)
        return Response(_detail(record, bodies))


class WhateverIsAccepted(BaseContentNegotiation):
    """For an answer whose type the view decides: `format` is its own parameter, and `Accept` is not asked."""

    def select_parser(self, request: Request, parsers: Iterable[BaseParser]) -> BaseParser:
        return next(iter(parsers))

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        renderer = next(iter(renderers))
        return renderer, renderer.media_type or ""


class Export(APIView):
    rules = READ
    content_negotiation_class = WhateverIsAccepted

    @extend_schema(
        operation_id="dashboard_request_responses_export",
        parameters=[serializers.ExportQuery],
        responses={(200, "text/csv"): OpenApiTypes.STR, (200, "application/json"): serializers.Record(many=True)},
    )
    def get(self, request: Request) -> StreamingHttpResponse:
        """Everything that fits the filters as a file, streamed. Bodies are not in it."""
        wanted = _valid(serializers.ExportQuery, request)
        return export(wanted.filters(), wanted.validated_data["format"])


class TokenTotals(APIView):
    rules = READ

    @extend_schema(parameters=[serializers.TotalsQuery], responses=serializers.Totals)
    def get(self, request: Request) -> Response:
        """Requests and tokens since the beginning, whatever has been deleted since."""
        return Response(queries.totals(**_valid(serializers.TotalsQuery, request).columns()))


class DailyTotals(APIView):
    rules = READ

    @extend_schema(parameters=[serializers.DailyQuery], responses=serializers.DayTotals(many=True))
    def get(self, request: Request) -> Response:
        """Requests and tokens by day (UTC), today last."""
        wanted = _valid(serializers.DailyQuery, request)
        return Response(queries.daily_totals(wanted.validated_data["days"], **wanted.columns()))


class MonthlyTotals(APIView):
    rules = READ

    @extend_schema(parameters=[serializers.MonthlyQuery], responses=serializers.MonthTotals(many=True))
    def get(self, request: Request) -> Response:
        """Requests and tokens by month (UTC), this one last."""
        wanted = _valid(serializers.MonthlyQuery, request)
        return Response(queries.monthly_totals(wanted.validated_data["months"], **wanted.columns()))


def _valid(query: type[Query], request: Request) -> Query:
    """The query's parameters, read. Raises: DRF's ValidationError."""
    read = query(data=request.query_params)
    read.is_valid(raise_exception=True)
    return read


def _revealed(request: Request, record: RequestRecord) -> BodiesView:
    if is_key(request):
        raise ApiError(403, "sign_in_required", "Only a signed-in administrator may reveal bodies, not an API key.")
    try:
        bodies = reveal_payload(record, person=person_of(request), ip=address_of(request) or None)
    except DecryptionError as error:
        text = "The bodies were stored under another secret key."
        raise ApiError(409, "payload_unreadable", text) from error
    return revealed_view(record, bodies)


def _detail(record: RequestRecord, bodies: BodiesView) -> dict[str, Any]:
    return {
        **serializers.Record(record).data,
        "attempts": serializers.Attempt(record.attempts.all(), many=True).data,
        "masked": bodies.is_masked,
        "readable": bodies.is_readable,
        "request_body": bodies.request,
        "response_body": bodies.response,
        "request_truncated": bodies.request_truncated,
        "response_truncated": bodies.response_truncated,
    }
