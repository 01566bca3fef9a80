"""People, keys, tokens and the audit in Django's admin. Whatever writes goes through the services."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth import admin as auth_admin  # noqa: F401  # so that it registers Group before we take it away
from django.contrib.auth.models import Group
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from access import services
from access.callers import actor_of
from access.models import ApiKey, AuditEvent, KeyLimit, SignInToken, User
from access.permissions import Permission, Role
from access.refusals import Refusal
from access.services.limits import NUMBERS

admin.site.unregister(Group)  # roles say who may do what


class ServiceAdmin(admin.ModelAdmin[Any]):
    """Writes through services: shows why one refused, and a new secret once, in the answer itself."""

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        return self._or_why_not(request, lambda: super(ServiceAdmin, self).changeform_view(request, *args, **kwargs))

    def delete_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        return self._or_why_not(request, lambda: super(ServiceAdmin, self).delete_view(request, *args, **kwargs))

    def changelist_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        return self._or_why_not(request, lambda: super(ServiceAdmin, self).changelist_view(request, *args, **kwargs))

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        secret: str = request.secret_once  # type: ignore[attr-defined]  # set by save_model, and nowhere else
        return self.show_once(request, str(obj), secret)

    def show_once(self, request: HttpRequest, whose: str, secret: str) -> HttpResponse:
        """A page with the secret. Nothing keeps it: neither a message nor the session."""
        context = {
            **self.admin_site.each_context(request),
            "title": _("Copy it now: it is shown this once and cannot be shown again."),
            "whose": whose,
            "secret": secret,
            "opts": self.opts,
        }
        response = TemplateResponse(request, "access/admin_secret.html", context)
        response["Cache-Control"] = "no-store"
        return response

    def ask(self, request: HttpRequest, action: str, question: Any, chosen: QuerySet[Any]) -> HttpResponse:
        """A page that asks before an action on `chosen` that cannot be undone."""
        context = {
            **self.admin_site.each_context(request),
            "title": question,
            "action": action,
            "chosen": chosen,
            "opts": self.opts,
        }
        return TemplateResponse(request, "access/admin_question.html", context)

    def _or_why_not(self, request: HttpRequest, view: Callable[[], Any]) -> HttpResponseBase:
        try:
            answer: HttpResponseBase = view()
        except Refusal as refusal:
            self.message_user(request, str(refusal), messages.ERROR)
            return redirect(request.get_full_path())
        return answer


class ReadOnlyAdmin(ServiceAdmin):
    """Looked at, and at most ended; never added, changed or deleted."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


def changed(form: Any) -> dict[str, Any]:
    """The values of a form that are not what they were."""
    return {name: form.cleaned_data[name] for name in form.changed_data}


@admin.register(User)
class UserAdmin(ServiceAdmin):
    list_display = ("username", "role", "is_active", "must_change_password", "last_login", "date_joined")
    list_filter = ("role", "is_active", "must_change_password")
    search_fields = ("username",)
    ordering = ("username",)
    readonly_fields = ("must_change_password", "last_login", "date_joined")
    actions = ("reset_password", "sign_out_everywhere")

    def get_fields(self, request: HttpRequest, obj: User | None = None) -> Any:
        return ("username", "role", "is_active", *self.readonly_fields) if obj else ("username", "role")

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> Any:
        return self.readonly_fields if obj else ()

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        values, actor = form.cleaned_data, actor_of(request)
        if change:
            services.update_user(User.objects.get(pk=obj.pk), actor=actor, **changed(form))
            return
        user, secret = services.create_user(actor=actor, **values)
        obj.pk = user.pk
        request.secret_once = secret  # type: ignore[attr-defined]  # for the page that answers this request

    def delete_model(self, request: HttpRequest, obj: User) -> None:
        services.delete_user(obj, actor=actor_of(request))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        for user in queryset:
            services.delete_user(user, actor=actor_of(request))

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Keys and tokens go with their person, though nobody may delete one alone."""
        listed, counts, _needed, protected = super().get_deleted_objects(objs, request)
        return listed, counts, set(), protected

    @admin.action(permissions=["change"], description=_("Give a new password (one person)"))
    def reset_password(self, request: HttpRequest, queryset: QuerySet[User]) -> HttpResponse | None:
        if queryset.count() != 1:
            self.message_user(request, _("Choose one person."), messages.ERROR)
            return None
        user = queryset.get()
        return self.show_once(request, user.username, services.reset_password(user, actor=actor_of(request)))

    @admin.action(permissions=["change"], description=_("Sign out everywhere"))
    def sign_out_everywhere(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        for user in queryset:
            services.sign_out_everywhere(user, actor=actor_of(request))
        self.message_user(request, _("Sessions and tokens are ended."), messages.SUCCESS)


_STATES = {
    "active": _("active"),
    "disabled": _("disabled"),
    "expired": _("expired"),
    "revoked": _("revoked"),
}


class StateFilter(admin.SimpleListFilter):
    title = _("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return list(_STATES.items())

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        expired = Q(expires_at__lte=timezone.now())
        disabled = Q(enabled=False) | Q(owner__is_active=False)
        match self.value():
            case "revoked":
                return queryset.filter(revoked_at__isnull=False)
            case "expired":
                return queryset.filter(expired, revoked_at=None)
            case "disabled":
                return queryset.filter(disabled, revoked_at=None).exclude(expired)
            case "active":
                return queryset.filter(revoked_at=None).exclude(expired).exclude(disabled)
        return queryset


class KeyForm(forms.ModelForm[ApiKey]):
    permissions = forms.MultipleChoiceField(
        label=_("Permissions"), choices=Permission.choices, widget=forms.CheckboxSelectMultiple
    )
    allowed_models = forms.CharField(
        label=_("Allowed models"),
        required=False,
        help_text=_("One model id a line; empty means all."),
        widget=forms.Textarea(attrs={"rows": 4}),
    )

    class Meta:
        model = ApiKey
        fields = ("name", "owner", "permissions", "allowed_models", "expires_at", "enabled")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk and "allowed_models" in self.fields:
            self.initial["allowed_models"] = "\n".join(self.instance.allowed_models)

    def clean_allowed_models(self) -> list[str]:
        return [line.strip() for line in self.cleaned_data["allowed_models"].splitlines() if line.strip()]


class LimitFormSet(forms.BaseInlineFormSet[KeyLimit, ApiKey, Any]):
    """What is sent without any limits, by a script that fills in the key's own fields, leaves them as they are."""

    def __init__(self, data: Any = None, *args: Any, **kwargs: Any) -> None:
        prefix = kwargs.get("prefix") or self.get_default_prefix()
        if data is not None and f"{prefix}-TOTAL_FORMS" not in data:
            data = {**data, f"{prefix}-TOTAL_FORMS": "0", f"{prefix}-INITIAL_FORMS": "0"}
        super().__init__(data, *args, **kwargs)


class LimitInline(admin.TabularInline[KeyLimit, ApiKey]):
    model = KeyLimit
    formset = LimitFormSet
    fields = ("model", *NUMBERS)
    extra = 1


@admin.register(ApiKey)
class ApiKeyAdmin(ServiceAdmin):
    form = KeyForm
    list_display = (
        "name",
        "owner",
        "shown_prefix",
        "shown_state",
        "listed",
        "last_used_at",
        "expires_at",
        "created_at",
    )
    list_filter = (StateFilter, ("owner", admin.RelatedOnlyFieldListFilter))
    list_select_related = ("owner",)
    search_fields = ("name", "public_id", "owner__username")
    readonly_fields = ("shown_prefix", "shown_state", "created_at", "last_used_at", "revoked_at")
    actions = ("revoke",)
    inlines = (LimitInline,)

    def get_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        editable = ["name", "owner", "permissions", "allowed_models", "expires_at"]
        return [*editable, "enabled", *self.readonly_fields] if obj else editable

    def get_readonly_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        return ("owner", *self.readonly_fields) if obj else ()

    def has_change_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        return super().has_change_permission(request, obj) and (obj is None or obj.revoked_at is None)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # a key is revoked: who had it stays known

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        values, actor = form.cleaned_data, actor_of(request)
        if change:
            services.update_api_key(ApiKey.objects.get(pk=obj.pk), actor=actor, **changed(form))
            return
        key, secret = services.mint_api_key(actor=actor, **values)
        obj.pk, obj.public_id = key.pk, key.public_id
        request.secret_once = secret  # type: ignore[attr-defined]  # for the page that answers this request

    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        formset.new_objects, formset.changed_objects, formset.deleted_objects = [], [], []  # for the admin's log
        if formset.has_changed():
            rows = [row.cleaned_data for row in formset.forms if row not in formset.deleted_forms]
            limits = [{name: row.get(name) for name in LimitInline.fields} for row in rows if any(row.values())]
            services.update_api_key(ApiKey.objects.get(pk=form.instance.pk), actor=actor_of(request), limits=limits)

    @admin.action(permissions=["change"], description=_("Revoke"))
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> HttpResponse | None:
        if "confirmed" not in request.POST:
            return self.ask(request, "revoke", _("Revoke these keys? This cannot be undone."), queryset)
        ended = sum(services.revoke_api_key(key, actor=actor_of(request)) for key in queryset)
        self.message_user(request, ngettext("%d key revoked.", "%d keys revoked.", ended) % ended, messages.SUCCESS)
        return None

    @admin.display(description=_("key"), ordering="public_id")
    def shown_prefix(self, key: ApiKey) -> str:
        return f"{key.prefix}…"

    @admin.display(description=_("state"))
    def shown_state(self, key: ApiKey) -> str:
        return str(_STATES[key.state])

    @admin.display(description=_("permissions"))
    def listed(self, key: ApiKey) -> str:
        return str(_("all")) if key.has_every_permission else ", ".join(key.permissions)


@admin.register(SignInToken)
class SignInTokenAdmin(ReadOnlyAdmin):
    list_display = ("user", "created_at", "expires_at", "revoked_at")
    list_filter = (("revoked_at", admin.EmptyFieldListFilter),)
    list_select_related = ("user",)
    search_fields = ("user__username",)
    fields = ("user", "created_at", "expires_at", "revoked_at")
    ordering = ("-id",)
    actions = ("revoke",)

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return isinstance(request.user, User) and request.user.as_role is Role.ADMINISTRATOR

    @admin.action(permissions=["revoke"], description=_("Revoke"))
    def revoke(self, request: HttpRequest, queryset: QuerySet[SignInToken]) -> None:
        ended = sum(services.revoke_token(token, actor=actor_of(request)) for token in queryset)
        self.message_user(request, ngettext("%d token revoked.", "%d tokens revoked.", ended) % ended, messages.SUCCESS)


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyAdmin):
    list_display = ("at", "actor_kind", "actor", "action", "target", "ip")
    list_filter = ("actor_kind", "action")
    search_fields = ("actor", "target", "action")
    fields = ("at", "actor_kind", "actor", "ip", "action", "target", "details")
    show_full_result_count = False
