"""The catalogue in Django's admin: checked as the services check it, audited, and told to the gateway."""

from __future__ import annotations

from typing import Any, TypeVar

from django.contrib import admin, messages
from django.db.models import Model, QuerySet
from django.forms import ModelForm
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from access.audit import Actor, record
from access.callers import actor_of
from access.models import User
from access.refusals import Refusal
from llmlb_site.lib.events import publish
from models_catalog import services
from models_catalog.forms import CatalogModelForm, CloudProviderForm, ModelAliasForm
from models_catalog.models import CatalogModel, CloudProvider, ModelAlias, ProviderName
from models_catalog.queries import provider_state

Kept = TypeVar("Kept", bound=Model)


class AuditedAdmin(admin.ModelAdmin[Kept]):
    """Saves and deletes by the admin's own forms, which validate; records and publishes each."""

    verb = "model"

    def save_model(self, request: HttpRequest, obj: Kept, form: ModelForm[Kept], change: bool) -> None:
        super().save_model(request, obj, form, change)
        self._tell(request, "change" if change else "add", obj)

    def delete_model(self, request: HttpRequest, obj: Kept) -> None:
        self._tell(request, "remove", obj)
        super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Kept]) -> None:
        for obj in queryset:
            self._tell(request, "remove", obj)
        super().delete_queryset(request, queryset)

    def _tell(self, request: HttpRequest, what: str, obj: Kept) -> None:
        assert isinstance(request.user, User)
        record(f"{self.verb}.{what}", actor=Actor.user(request.user), target=str(obj))
        publish("models", {"model": str(obj)})


@admin.register(CatalogModel)
class CatalogModelAdmin(AuditedAdmin[CatalogModel]):
    verb = "model"
    form = CatalogModelForm
    list_display = ["model_id", "description", "capabilities", "registered_at"]
    search_fields = ["model_id", "description"]
    list_filter = ["registered_at"]


@admin.register(ModelAlias)
class ModelAliasAdmin(AuditedAdmin[ModelAlias]):
    verb = "alias"
    form = ModelAliasForm
    list_display = ["alias", "model_id", "created_at"]
    search_fields = ["alias", "model_id"]
    list_filter = ["created_at"]


@admin.register(CloudProvider)
class CloudProviderAdmin(admin.ModelAdmin[CloudProvider]):
    """Three rows, one a provider: nobody adds or deletes one. Whether a key is there is shown, the key never."""

    list_display = ["name", "state", "key", "model_count", "models_at", "last_error"]
    actions = ["refresh_models"]
    readonly_fields = ["name", "state", "key", "address", "model_count", "models_at", "last_checked", "last_error"]
    fields = ["name", "enabled", "api_key", "remove_api_key", "base_url", *readonly_fields[1:]]

    class Media:
        css = {"all": ["css/parts.css"]}

    # --- reading

    def get_queryset(self, request: HttpRequest) -> QuerySet[CloudProvider]:
        have = set(CloudProvider.objects.values_list("name", flat=True))
        for name in set(ProviderName.values) - have:
            CloudProvider.objects.get_or_create(name=name)
        return super().get_queryset(request)

    @admin.display(description=_("status"))
    def state(self, row: CloudProvider) -> SafeString:
        state = provider_state(row.name, row)
        if not row.enabled:
            return _badge("disabled", _("disabled"))
        if not state.configured:
            return _badge("pending", _("not configured"))
        return _badge("error", _("error")) if row.last_error else _badge("online", _("configured"))

    @admin.display(description=_("key"))
    def key(self, row: CloudProvider) -> Any:
        return {
            "database": _("set here"),
            "environment": _("from the environment"),
            "": _("none"),
        }[provider_state(row.name, row).source]

    @admin.display(description=_("address in use"))
    def address(self, row: CloudProvider) -> str:
        return provider_state(row.name, row).base_url

    @admin.display(description=_("models"))
    def model_count(self, row: CloudProvider) -> int:
        return len(row.model_list)

    # --- writing

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: CloudProvider | None = None) -> bool:
        return False

    def get_form(self, request: HttpRequest, obj: CloudProvider | None = None, change: bool = False, **kw: Any) -> Any:
        return type("ProviderForm", (CloudProviderForm,), {"actor": actor_of(request)})

    def save_form(self, request: HttpRequest, form: Any, change: bool) -> CloudProvider:
        row: CloudProvider = form.instance
        return row

    def save_model(self, request: HttpRequest, obj: CloudProvider, form: Any, change: bool) -> None:
        """The form has done it."""

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """A provider has nothing beside it that a form could write."""

    @admin.action(permissions=["change"], description=_("Test the key and read the models"))
    def refresh_models(self, request: HttpRequest, queryset: QuerySet[CloudProvider]) -> None:
        for row in queryset:
            try:
                listing = services.refresh_provider(name=row.name, actor=actor_of(request))
            except Refusal as refusal:
                self._say(request, row, refusal, messages.WARNING)
                continue
            if listing.models is None:
                self._say(request, row, listing.error, messages.ERROR)
            else:
                self._say(request, row, _("%d models.") % len(listing.models), messages.SUCCESS)

    def _say(self, request: HttpRequest, row: CloudProvider, text: object, level: int) -> None:
        self.message_user(request, f"{row}: {text}", level)


def _badge(kind: str, text: Any) -> SafeString:
    return format_html('<span class="badge is-{}">{}</span>', kind, text)
