"""Nodes in Django's admin. Whatever writes goes through the services."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import Model, QuerySet
from django.forms import ModelForm
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _t
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from access.callers import actor_of
from access.refusals import Refusal
from nodes import services
from nodes.forms import NodeChangeForm, NodeForm, NodeModelForm, NodeRegistrationForm
from nodes.models import Download, DownloadState, Node, NodeModel, NodeStatus, PollResult
from nodes.queries import nodes_with_counts

BADGES = {"all": ["css/parts.css"]}


def badge(kind: str, text: Any) -> SafeString:
    return format_html('<span class="badge is-{}">{}</span>', kind, text)


@admin.register(Node)
class NodeAdmin(admin.ModelAdmin[Node]):
    list_display = ("name", "state", "node_type", "model_count", "excluded_count", "limit", "latency", "last_seen")
    list_filter = ("status", "node_type", "enabled", "draining")
    search_fields = ("name", "base_url", "notes", "models__model_id")
    ordering = ("name",)
    actions = ("sync_now", "drain", "resume", "reregister", "reinclude")
    list_per_page = 50
    readonly_fields = (
        "base_url", "state", "node_type_reason", "model_count", "excluded_count", "latency", "version", "last_seen",
        "last_error", "error_count", "registered_at",
    )  # fmt: skip

    class Media:
        css = BADGES

    # --- reading

    def get_queryset(self, request: HttpRequest) -> QuerySet[Node]:
        return nodes_with_counts().order_by(*self.ordering)

    @admin.display(description=_("status"), ordering="status")
    def state(self, node: Node) -> SafeString:
        if not node.enabled:
            return badge("disabled", _("disabled"))
        if node.draining:
            return badge("draining", _("draining"))
        if node.status == NodeStatus.ONLINE and not node.model_count:  # type: ignore[attr-defined]  # annotated
            return badge("pending", _("online, lists no models"))
        return badge(node.status, node.get_status_display())

    @admin.display(description=_("models"), ordering="model_count")
    def model_count(self, node: Any) -> SafeString:
        return _rows(node, str(node.model_count))

    @admin.display(description=_("excluded"), ordering="excluded_count")
    def excluded_count(self, node: Any) -> SafeString | str:
        if not node.excluded_count:
            return "0"
        return _rows(node, badge("excluded", node.excluded_count), "&state=excluded")

    @admin.display(description=_("concurrent requests"))
    def limit(self, node: Node) -> str:
        return str(node.concurrency_limit or _t("no limit"))

    @admin.display(description=_("latency"), ordering="latency_ms")
    def latency(self, node: Node) -> str:
        return "–" if node.latency_ms is None else f"{node.latency_ms:.0f} ms"

    # --- writing

    def get_form(self, request: HttpRequest, obj: Node | None = None, change: bool = False, **kwargs: Any) -> Any:
        form: type[NodeForm] = NodeChangeForm if obj else NodeRegistrationForm
        return type(form.__name__, (form,), {"actor": actor_of(request)})

    def get_fields(self, request: HttpRequest, obj: Node | None = None) -> Any:
        names = list(NodeForm.Meta.fields)
        if obj is None:
            return [*names, "allow_unreachable"]
        names.insert(names.index("api_key") + 1, "remove_api_key")
        return [*names, *self.readonly_fields[1:]]

    def get_readonly_fields(self, request: HttpRequest, obj: Node | None = None) -> Any:
        return self.readonly_fields if obj else ()

    def save_form(self, request: HttpRequest, form: Any, change: bool) -> Node:
        node: Node = form.instance
        return node

    def save_model(self, request: HttpRequest, obj: Node, form: ModelForm[Node], change: bool) -> None:
        if isinstance(form, NodeChangeForm):
            services.update_node(node_id=obj.pk, changes=form.changes(), actor=actor_of(request))
        elif obj.status == NodeStatus.PENDING:
            text = _("Node %(node)s was saved as pending: it does not answer yet.") % {"node": obj.name}
            self.message_user(request, text, messages.WARNING)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """A node has nothing beside it that a form could write."""

    def delete_model(self, request: HttpRequest, obj: Node) -> None:
        services.delete_node(node_id=obj.pk, actor=actor_of(request))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Node]) -> None:
        for pk in list(queryset.values_list("pk", flat=True)):
            services.delete_node(node_id=pk, actor=actor_of(request))

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Models and checks go with their node, though nobody may delete one alone: they are counted, not listed."""
        nodes = [str(node) for node in objs]
        models = NodeModel.objects.filter(node__in=objs).count()
        return nodes, {_("nodes"): len(nodes), _("models on nodes"): models}, set(), []

    # --- actions

    @admin.action(permissions=["change"], description=_("Sync now"))
    def sync_now(self, request: HttpRequest, queryset: QuerySet[Node]) -> None:
        nodes = {node.pk: node for node in queryset}
        outcomes = services.sync_nodes(node_ids=list(nodes), actor=actor_of(request))
        for pk, outcome in outcomes.items():
            if isinstance(outcome, Refusal):
                self.message_user(
                    request,
                    _("Node %(node)s: %(reason)s") % {"node": nodes[pk].name, "reason": outcome},
                    messages.ERROR,
                )
            else:
                added, removed = len(outcome.changes.added), len(outcome.changes.removed)
                values = {"node": nodes[pk].name, "count": len(outcome.models), "added": added, "removed": removed}
                text = _("Node %(node)s lists %(count)d models: %(added)d new, %(removed)d gone.") % values
                self.message_user(request, text, messages.SUCCESS)

    @admin.action(permissions=["change"], description=_("Drain: give it no new requests"))
    def drain(self, request: HttpRequest, queryset: QuerySet[Node]) -> None:
        self._each(request, queryset, services.drain_node, _("Node %(node)s is draining."))

    @admin.action(permissions=["change"], description=_("Resume"))
    def resume(self, request: HttpRequest, queryset: QuerySet[Node]) -> None:
        self._each(request, queryset, services.resume_node, _("Node %(node)s takes requests again."))

    @admin.action(permissions=["change"], description=_("Register again: read everything, clear its exclusions"))
    def reregister(self, request: HttpRequest, queryset: QuerySet[Node]) -> None:
        self._each(request, queryset, services.reregister_node, _("Node %(node)s was registered again."))

    @admin.action(permissions=["change"], description=_("Put every excluded model back into routing"))
    def reinclude(self, request: HttpRequest, queryset: QuerySet[Node]) -> None:
        def everything(*, node_id: int, actor: Any) -> int:
            return services.reinclude_model(node_id=node_id, model_id=None, actor=actor)

        self._each(request, queryset, everything, _("Node %(node)s has no excluded model any more."))

    def _each(self, request: HttpRequest, queryset: QuerySet[Node], service: Callable[..., object], done: Any) -> None:
        """Call a service for each node, and say of each what came of it."""
        for node in queryset:
            try:
                service(node_id=node.pk, actor=actor_of(request))
            except (Refusal, ValidationError) as error:
                self.message_user(
                    request, _("Node %(node)s: %(reason)s") % {"node": node.name, "reason": error}, messages.ERROR
                )
            else:
                self.message_user(request, done % {"node": node.name}, messages.SUCCESS)


def _rows(node: Node, text: str, more: str = "") -> SafeString:
    url = reverse("admin:nodes_nodemodel_changelist")
    return format_html('<a href="{}?node__id__exact={}{}">{}</a>', url, node.pk, more, text)


class ReadOnly:
    """Written by checks and requests alone."""

    def has_add_permission(self, *args: Any) -> bool:
        return False

    def has_delete_permission(self, *args: Any) -> bool:
        return False


class RoutingFilter(admin.SimpleListFilter):
    title = _("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("executable", _("executable")), ("excluded", _("excluded"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() in {"executable", "excluded"}:
            return queryset.filter(excluded_at__isnull=self.value() == "executable")
        return queryset


@admin.register(NodeModel)
class NodeModelAdmin(ReadOnly, admin.ModelAdmin[NodeModel]):
    list_display = ("model_id", "node", "state", "excluded_reason", "excluded_at", "failure_count", "context_length")
    list_filter = (RoutingFilter, ("node", admin.RelatedOnlyFieldListFilter))
    search_fields = ("model_id", "node__name")
    list_select_related = ("node",)
    ordering = ("model_id", "node")
    actions = ("reinclude",)
    fields = (
        "node", "model_id", "state", "excluded_at", "excluded_reason", "failure_count", "owned_by", "context_length",
        "reported", "capabilities", "listed_at",
    )  # fmt: skip
    readonly_fields = tuple(name for name in fields if name != "capabilities")
    form = NodeModelForm

    class Media:
        css = BADGES

    @admin.display(description=_("state"), ordering="excluded_at")
    def state(self, row: NodeModel) -> SafeString:
        return badge("excluded", _("excluded")) if row.is_excluded else badge("online", _("executable"))

    @admin.display(description=_("the node says"))
    def reported(self, row: NodeModel) -> str:
        return (
            ", ".join(word if holds else f"({word}: ✕)" for word, holds in sorted(row.reported_capabilities.items()))
            or "–"
        )

    def save_model(self, request: HttpRequest, obj: NodeModel, form: ModelForm[NodeModel], change: bool) -> None:
        chosen = form.cleaned_data["capabilities"]
        services.set_capabilities(
            node_id=obj.node_id, model_id=obj.model_id, capabilities=chosen, actor=actor_of(request)
        )

    @admin.action(permissions=["change"], description=_("Put back into routing"))
    def reinclude(self, request: HttpRequest, queryset: QuerySet[NodeModel]) -> None:
        count = sum(
            services.reinclude_model(node_id=row.node_id, model_id=row.model_id, actor=actor_of(request))
            for row in queryset
        )
        text = ngettext("%(count)d model is back in routing.", "%(count)d models are back in routing.", count)
        self.message_user(request, text % {"count": count}, messages.SUCCESS)


@admin.register(PollResult)
class PollResultAdmin(ReadOnly, admin.ModelAdmin[PollResult]):
    list_display = ("at", "node", "ok", "milliseconds", "model_count", "error", "status_before", "status_after")
    list_filter = ("ok", ("node", admin.RelatedOnlyFieldListFilter), "status_after")
    search_fields = ("node__name", "error")
    list_select_related = ("node",)
    ordering = ("-id",)
    list_per_page = 50
    list_max_show_all = 0
    show_full_result_count = False
    actions = None

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    @admin.display(description=_("latency"), ordering="latency_ms")
    def milliseconds(self, row: PollResult) -> str:
        return "–" if row.latency_ms is None else f"{row.latency_ms:.0f} ms"


@admin.register(Download)
class DownloadAdmin(ReadOnly, admin.ModelAdmin[Download]):
    """What nodes were asked to fetch. Ordered and cancelled on a node's page."""

    list_display = ("created_at", "node", "model", "state_badge", "size", "requested_by", "finished_at", "error")
    list_filter = ("state", ("node", admin.RelatedOnlyFieldListFilter))
    search_fields = ("model", "node__name", "requested_by", "error")
    list_select_related = ("node",)
    ordering = ("-id",)
    list_per_page = 50
    list_max_show_all = 0
    show_full_result_count = False
    actions = None

    class Media:
        css = BADGES

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    @admin.display(description=_("state"), ordering="state")
    def state_badge(self, row: Download) -> SafeString:
        kinds = {DownloadState.SUCCESS: "online", DownloadState.FAILED: "error", DownloadState.CANCELLED: "disabled"}
        return badge(kinds.get(DownloadState(row.state), "pending"), row.get_state_display())

    @admin.display(description=_("size"), ordering="total_bytes")
    def size(self, row: Download) -> str:
        return filesizeformat(row.total_bytes or row.downloaded_bytes)
