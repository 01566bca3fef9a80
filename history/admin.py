"""The history in Django's admin: to be looked at, never changed. It must stand a million rows: nothing is counted."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy as _

from history.models import RequestAttempt, RequestRecord, TokenTotal
from history.partitions import spans
from llmlb_site.lib.templatetags.llmlb import duration


class ReadOnly:
    """What the history's admin classes share: no way to write."""

    def has_add_permission(self, *args: Any) -> bool:
        return False

    def has_change_permission(self, *args: Any) -> bool:
        return False

    def has_delete_permission(self, *args: Any) -> bool:
        return False


class EstimatingPaginator(Paginator[Any]):
    """Tells the number of unfiltered rows from the ids' range: retention deletes only at its lower end."""

    @cached_property
    def count(self) -> int:
        rows: QuerySet[Any] = self.object_list  # type: ignore[assignment]  # the admin paginates a queryset
        if rows.query.where:
            return rows.count()
        if rows.model is RequestRecord:
            return sum(high - low + 1 for low, high in spans())
        last = rows.model._default_manager.order_by("-pk").values_list("pk", flat=True).first()
        first = rows.model._default_manager.order_by("pk").values_list("pk", flat=True).first()
        return last - first + 1 if last is not None and first is not None else 0


class AttemptInline(ReadOnly, admin.TabularInline[RequestAttempt, RequestRecord]):
    model = RequestAttempt
    extra = 0
    fields = ("number", "node_name", "selection_reason", "status", "error", "excluded", "took")
    readonly_fields = ("took",)

    @admin.display(description=_("duration"))
    def took(self, attempt: RequestAttempt) -> str:
        return duration(attempt.duration_ms)


class HistoryAdmin(ReadOnly, admin.ModelAdmin[Model]):
    show_facets = admin.ShowFacets.NEVER
    show_full_result_count = False
    list_max_show_all = 0
    list_per_page = 50
    actions = None
    paginator = EstimatingPaginator


@admin.register(RequestRecord)
class RequestRecordAdmin(HistoryAdmin):
    list_display = (
        "started_at", "model", "node_name", "api_key_name", "kind", "outcome", "status", "attempt_count",
        "took", "total_tokens",
    )  # fmt: skip
    list_filter = ("outcome", "status")
    search_fields = ("=request_id", "=model")
    search_help_text = _("A request id or a model's name, exactly. The history page finds more.")
    ordering = ("-id",)
    fields = (
        "request_id", "started_at", "kind", "model", "served_model", "node_name", "api_key_name", "client_ip",
        "outcome", "status", "error_code", "error_message", "stream", "poison", "attempt_count",
        "took", "waited", "first_byte", "prompt_tokens", "completion_tokens", "total_tokens", "token_source", "speed",
        "bytes_in", "bytes_out",
    )  # fmt: skip
    readonly_fields = ("took", "waited", "first_byte", "speed")
    inlines = (AttemptInline,)

    @admin.display(description=_("duration"))
    def took(self, record: RequestRecord) -> str:
        return duration(record.duration_ms)

    @admin.display(description=_("waited"))
    def waited(self, record: RequestRecord) -> str:
        return duration(record.queue_ms)

    @admin.display(description=_("first byte"))
    def first_byte(self, record: RequestRecord) -> str:
        return duration(record.first_byte_ms)

    @admin.display(description=_("tokens/s"))
    def speed(self, record: RequestRecord) -> str:
        return "–" if record.tokens_per_second is None else f"{record.tokens_per_second:.1f}"


@admin.register(TokenTotal)
class TokenTotalAdmin(HistoryAdmin):
    list_display = (
        "day", "model", "node_name", "api_key_name", "requests", "failures", "prompt_tokens", "completion_tokens",
    )  # fmt: skip
    search_fields = ("model", "node_name", "api_key_name")
    date_hierarchy = "day"
    ordering = ("-day", "-id")
