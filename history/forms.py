"""The filters above the list."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from access.models import ApiKey
from history.choices import KINDS, Outcome
from history.filters import Filters, is_status
from history.queries import DEFAULT_PAGE_SIZE, PAGE_SIZES, page_size
from nodes.models import Node

_ANY = ("", _("any"))


class FilterForm(forms.Form):
    """Every field may be empty. A value that cannot be used is shown as such and counts as empty."""

    q = forms.CharField(
        label=_("Search"),
        required=False,
        widget=forms.TextInput(
            attrs={"type": "search", "placeholder": _("Model, error, request id, client"), "maxlength": 200}
        ),
    )
    model = forms.CharField(label=_("Model"), required=False, widget=forms.TextInput(attrs={"maxlength": 300}))
    node_id = forms.TypedChoiceField(label=_("Node"), required=False, coerce=int, empty_value=None)
    api_key_id = forms.TypedChoiceField(label=_("API key"), required=False, coerce=int, empty_value=None)
    outcome = forms.ChoiceField(label=_("Outcome"), required=False, choices=[_ANY, *Outcome.choices])
    status = forms.CharField(
        label=_("Status"),
        required=False,
        widget=forms.TextInput(attrs={"placeholder": "503, 4xx", "maxlength": 7, "autocomplete": "off"}),
    )
    kind = forms.ChoiceField(label=_("Kind"), required=False, choices=[_ANY, *((kind, kind) for kind in KINDS)])
    start_time = forms.DateTimeField(
        label=_("From (UTC)"), required=False, widget=forms.DateTimeInput(attrs={"type": "datetime-local"})
    )
    end_time = forms.DateTimeField(
        label=_("To (UTC)"), required=False, widget=forms.DateTimeInput(attrs={"type": "datetime-local"})
    )
    per_page = forms.TypedChoiceField(label=_("Rows"), required=False, coerce=page_size, empty_value=None, choices=[])

    def __init__(self, data: Any) -> None:
        super().__init__(data)
        nodes = Node.objects.values_list("pk", "name").order_by("name")
        keys = ApiKey.objects.values_list("pk", "name").order_by("name", "-pk")
        self._offer("node_id", [_ANY, *nodes])
        self._offer("api_key_id", [_ANY, *keys])
        self._offer("per_page", [("", DEFAULT_PAGE_SIZE), *((n, n) for n in PAGE_SIZES if n != DEFAULT_PAGE_SIZE)])

    @property
    def has_rare_ones(self) -> bool:
        """Whether one of the fields is given that the page folds away."""
        return any(self.data.get(name) for name in ("model", "kind", "start_time", "end_time", "per_page"))

    def clean_status(self) -> str:
        status: str = self.cleaned_data["status"]
        if not is_status(status):
            raise ValidationError(_("A status like 503, or a class like 4xx."))
        return status

    def filters(self) -> Filters:
        """What was asked for, as far as it can be used."""
        self.is_valid()
        return Filters(**{name: value for name, value in self.cleaned_data.items() if name in Filters.__slots__})

    @property
    def size(self) -> int:
        self.is_valid()
        return page_size(self.cleaned_data.get("per_page"))

    def _offer(self, name: str, choices: list[Any]) -> None:
        field = self.fields[name]
        assert isinstance(field, forms.ChoiceField)
        field.choices = choices
