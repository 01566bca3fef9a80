"""Forms of the pages about people and keys. Rules about values are the services'."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from access.models import User
from access.permissions import Permission, Role
from access.refusals import Refusal
from access.services.limits import LARGEST, NUMBERS

LIFETIMES = [
    ("3", _("3 days")),
    ("7", _("7 days")),
    ("21", _("21 days")),
    ("70", _("70 days")),
    ("", _("No end")),
]


class RefusableForm(forms.Form):
    """A form that can show why a service refused."""

    def refuse(self, refusal: Refusal) -> None:
        self.add_error(refusal.field if refusal.field in self.fields else None, str(refusal))


class SignInForm(RefusableForm):
    username = forms.CharField(
        label=_("User name"),
        max_length=150,
        widget=forms.TextInput(attrs={"autocomplete": "username", "autocapitalize": "none", "autofocus": True}),
    )
    password = forms.CharField(
        label=_("Password"),
        max_length=1024,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )
    next = forms.CharField(required=False, widget=forms.HiddenInput)


class PasswordForm(RefusableForm):
    current_password = forms.CharField(
        label=_("Current password"),
        max_length=1024,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password", "autofocus": True}),
    )
    new_password = forms.CharField(
        label=_("New password"),
        max_length=1024,
        strip=False,
        help_text=_("At least 8 characters, not a common one, and not like your user name."),
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )
    again = forms.CharField(
        label=_("New password, once more"),
        max_length=1024,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        if "again" in values and values.get("new_password") != values["again"]:
            self.add_error("again", _("The two are not the same."))
        return values


class KeyForm(RefusableForm):
    name = forms.CharField(label=_("Name"), max_length=100, help_text=_("What or who will use it."))
    permissions = forms.MultipleChoiceField(label=_("Permissions"), widget=forms.CheckboxSelectMultiple)
    lifetime = forms.ChoiceField(
        label=_("Valid for"),
        choices=LIFETIMES,
        required=False,
        initial="70",
        help_text=_("A key without an end is valid until someone revokes it: give it only to what you watch."),
    )
    allowed_models = forms.CharField(
        label=_("Only these models"),
        required=False,
        help_text=_("One model id a line; empty means all."),
        widget=forms.Textarea(attrs={"rows": 3}),
    )

    def __init__(self, *args: Any, owner: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices = [(p.value, p.label) for p in Permission if p in owner.granted]
        field = self.fields["permissions"]
        assert isinstance(field, forms.MultipleChoiceField)
        field.choices = choices
        field.initial = [Permission.INFERENCE.value, Permission.MODELS_READ.value]

    @property
    def expires_at(self) -> datetime | None:
        days = self.cleaned_data["lifetime"]
        return timezone.now() + timedelta(days=int(days)) if days else None

    @property
    def models(self) -> list[str]:
        return [line.strip() for line in self.cleaned_data["allowed_models"].splitlines() if line.strip()]


def _number(label: Any) -> forms.IntegerField:
    return forms.IntegerField(
        label=label,
        required=False,
        min_value=1,
        max_value=LARGEST,
        widget=forms.NumberInput(attrs={"placeholder": _("no limit"), "inputmode": "numeric"}),
    )


class LimitForm(RefusableForm):
    """How much a key may use over all models. What is left empty is not limited."""

    requests_per_minute = _number(_("Requests per minute"))
    tokens_per_minute = _number(_("Tokens per minute"))
    concurrent_requests = _number(_("Requests at once"))
    tokens_per_day = _number(_("Tokens per day"))
    tokens_per_month = _number(_("Tokens per month"))

    @property
    def limit(self) -> dict[str, Any] | None:
        """None where no number was given."""
        values = self.cleaned_data
        return values if any(values.get(name) for name in NUMBERS) else None

    @property
    def numbers(self) -> list[forms.BoundField]:
        return [self[name] for name in NUMBERS]


class ModelLimitForm(LimitForm):
    """The same of one model."""

    model = forms.CharField(label=_("Model"), max_length=300, required=False)

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        if not values.get("model") and any(values.get(name) for name in NUMBERS):
            self.add_error("model", _("Name the model that these numbers are for."))
        return values


ModelLimitForms = forms.formset_factory(ModelLimitForm, extra=1)


class NewUserForm(RefusableForm):
    username = forms.CharField(
        label=_("User name"),
        max_length=50,
        help_text=_("3 to 50 letters, digits or underscores."),
        widget=forms.TextInput(attrs={"autocomplete": "off", "autocapitalize": "none"}),
    )
    role = forms.ChoiceField(label=_("Role"), choices=Role.choices, initial=Role.VIEWER)


class UserForm(NewUserForm):
    is_active = forms.BooleanField(
        label=_("Active"),
        required=False,
        help_text=_("Someone who is not active is signed out, and their API keys are refused."),
    )
