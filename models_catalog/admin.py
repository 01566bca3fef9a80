"""The catalogue in Django's admin: checked as the services check it, audited, and told to the gateway."""

from __future__ import annotations

from typing import TypeVar

from django.contrib import admin
from django.db.models import Model, QuerySet
from django.forms import ModelForm
from django.http import HttpRequest

from access.audit import Actor, record
from access.models import User
from llmlb_site.lib.events import publish
from models_catalog.forms import CatalogModelForm, ModelAliasForm
from models_catalog.models import CatalogModel, ModelAlias

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
