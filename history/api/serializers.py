"""What the history API reads and writes. Names that upstream's scripts know stand beside ours."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from history import queries
from history.choices import Outcome
from history.filters import Filters, is_status
from history.models import RequestAttempt, RequestRecord

_ALIASES = {"endpoint_id": "node_id"}


class FilterQuery(serializers.Serializer[Any]):
    """All that are given must hold."""

    model = serializers.CharField(required=False, help_text="A part of the model's name.")
    model_exact = serializers.CharField(required=False, help_text="The model's name, exactly.")
    node_id = serializers.IntegerField(required=False)
    endpoint_id = serializers.IntegerField(required=False, help_text="The same as node_id.")
    api_key_id = serializers.IntegerField(required=False)
    outcome = serializers.ChoiceField(choices=Outcome.choices, required=False)
    status = serializers.CharField(required=False, help_text="A status (503), a class (4xx), `success` or `error`.")
    kind = serializers.CharField(required=False, help_text="chat, completion, embedding …")
    stream = serializers.BooleanField(required=False, allow_null=True, default=None)
    start_time = serializers.DateTimeField(required=False, help_text="Requests that began then or later.")
    end_time = serializers.DateTimeField(required=False, help_text="Requests that began then or earlier.")
    request_id = serializers.CharField(required=False)
    client_ip = serializers.CharField(required=False)
    q = serializers.CharField(
        required=False, help_text="A part of the model, the error or the client address, or a whole request id."
    )

    def validate_status(self, value: str) -> str:
        if not is_status(value):
            raise serializers.ValidationError("Must be a status (503), a class (4xx), success or error.")
        return value

    def filters(self) -> Filters:
        given = {_ALIASES.get(name, name): value for name, value in self.validated_data.items()}
        return Filters(**{name: value for name, value in given.items() if name in Filters.__slots__})


class ListQuery(FilterQuery):
    page = serializers.CharField(required=False, help_text="From 1; beyond the last page means the last.")
    per_page = serializers.CharField(required=False, help_text="10, 25, 50 or 100; anything else means 50.")

    limit = serializers.IntegerField(
        required=False, min_value=1, max_value=queries.PAGE_SIZES[-1], help_text="So many rows, instead of per_page."
    )
    offset = serializers.IntegerField(
        required=False, min_value=0, max_value=10**9, help_text="After so many rows, instead of page."
    )

    def number(self) -> int:
        text = self.validated_data.get("page", "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 1

    def size(self) -> int:
        limit: int | None = self.validated_data.get("limit")
        return limit or queries.page_size(self.validated_data.get("per_page"))


class ExportQuery(FilterQuery):
    format = serializers.ChoiceField(choices=["csv", "json"], default="csv")


class RevealQuery(serializers.Serializer[Any]):
    reveal = serializers.BooleanField(default=False, help_text="The bodies in the clear: administrators only, audited.")


class Attempt(serializers.ModelSerializer[RequestAttempt]):
    endpoint_id = serializers.IntegerField(source="node_id")
    endpoint_name = serializers.CharField(source="node_name")

    class Meta:
        model = RequestAttempt
        fields = (
            "number", "node_id", "node_name", "endpoint_id", "endpoint_name", "selection_reason", "status", "error",
            "excluded", "duration_ms",
        )  # fmt: skip


class Record(serializers.ModelSerializer[RequestRecord]):
    timestamp = serializers.DateTimeField(source="started_at")
    request_type = serializers.CharField(source="kind")
    endpoint_id = serializers.IntegerField(source="node_id", allow_null=True)
    endpoint_name = serializers.CharField(source="node_name")
    input_tokens = serializers.IntegerField(source="prompt_tokens", allow_null=True)
    output_tokens = serializers.IntegerField(source="completion_tokens", allow_null=True)

    class Meta:
        model = RequestRecord
        fields: tuple[str, ...] = (
            "id", "request_id", "started_at", "timestamp", "kind", "request_type", "model", "served_model", "node_id",
            "node_name", "endpoint_id", "endpoint_name", "api_key_id", "api_key_name", "client_ip", "outcome", "status",
            "error_code", "error_message", "stream", "poison", "attempt_count", "duration_ms", "queue_ms",
            "first_byte_ms", "prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "total_tokens",
            "token_source", "tokens_per_second", "bytes_in", "bytes_out",
        )  # fmt: skip


class RecordPage(serializers.Serializer[Any]):
    records = Record(many=True)
    total = serializers.IntegerField()
    total_count = serializers.IntegerField(help_text="The same as total.")
    total_is_exact = serializers.BooleanField(help_text="false: there are more than total.")
    page = serializers.IntegerField()
    per_page = serializers.IntegerField()
    total_pages = serializers.IntegerField()


@extend_schema_field({"description": "Any JSON; a stream put together; text where it is no JSON; null for none."})
class BodyField(serializers.JSONField):
    pass


class RecordDetail(Record):
    """`masked` says that the words of both bodies are replaced by their number."""

    attempts = Attempt(many=True)
    masked = serializers.BooleanField()
    readable = serializers.BooleanField(help_text="false: the bodies were stored under another secret key.")
    request_body = BodyField()
    response_body = BodyField()
    request_truncated = serializers.BooleanField()
    response_truncated = serializers.BooleanField()

    class Meta(Record.Meta):
        fields: tuple[str, ...] = (
            *Record.Meta.fields, "attempts", "masked", "readable", "request_body", "response_body",
            "request_truncated", "response_truncated",
        )  # fmt: skip


class TotalsQuery(serializers.Serializer[Any]):
    """All that are given must hold."""

    node_id = serializers.IntegerField(required=False)
    endpoint_id = serializers.IntegerField(required=False, help_text="The same as node_id.")
    model = serializers.CharField(required=False, help_text="The model's name, exactly.")
    api_key_id = serializers.IntegerField(required=False)

    def columns(self) -> dict[str, Any]:
        known = {"node_id", "model", "api_key_id"}
        given = {_ALIASES.get(name, name): value for name, value in self.validated_data.items()}
        return {name: value for name, value in given.items() if name in known}


class DailyQuery(TotalsQuery):
    days = serializers.IntegerField(default=30, min_value=1, max_value=3660)


class MonthlyQuery(TotalsQuery):
    months = serializers.IntegerField(default=12, min_value=1, max_value=120)


class Totals(serializers.Serializer[Any]):
    total_input_tokens = serializers.IntegerField()
    total_output_tokens = serializers.IntegerField()
    total_tokens = serializers.IntegerField()
    request_count = serializers.IntegerField()
    failure_count = serializers.IntegerField()
    estimated_count = serializers.IntegerField(help_text="Requests whose tokens are estimated.")


class DayTotals(Totals):
    date = serializers.DateField()


class MonthTotals(Totals):
    month = serializers.CharField(help_text="2026-11")
