"""The catalogue's forms in Django's admin: they refuse what the services refuse."""

from __future__ import annotations

from typing import Any, ClassVar

from django import forms
from django.db import transaction
from django.utils.translation import gettext_lazy as _

from access.audit import Actor
from access.refusals import Refusal
from models_catalog.models import CatalogModel, CloudProvider, ModelAlias
from models_catalog.services import check_alias, check_model_id, set_provider
from nodes.capability_labels import CHOICES


class ModelAliasForm(forms.ModelForm[ModelAlias]):
    class Meta:
        model = ModelAlias
        fields = ["alias", "model_id"]

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        if "alias" in values and "model_id" in values:
            try:
                check_alias(values["alias"], values["model_id"], changed=self.instance.pk)
            except Refusal as refusal:
                self.add_error(refusal.field or None, str(refusal))
        return values


class CatalogModelForm(forms.ModelForm[CatalogModel]):
    capabilities = forms.MultipleChoiceField(
        label=_("capabilities"),
        required=False,
        choices=CHOICES,
        widget=forms.CheckboxSelectMultiple,
        help_text=_("None = told from the model's name."),
    )

    class Meta:
        model = CatalogModel
        fields = ["model_id", "description", "capabilities"]

    def clean_model_id(self) -> str:
        model_id: str = self.cleaned_data["model_id"]
        try:
            check_model_id(model_id, changed=self.instance.pk)
        except Refusal as refusal:
            raise forms.ValidationError(str(refusal)) from refusal
        return model_id


class CloudProviderForm(forms.ModelForm[CloudProvider]):
    """Sets up a provider while it is checked, as the service does it; the key is never shown again."""

    actor: ClassVar[Actor]

    api_key = forms.CharField(
        label=_("API key"),
        required=False,
        max_length=4000,
        strip=True,
        widget=forms.PasswordInput(attrs={"autocomplete": "off", "class": "vTextField"}),
        help_text=_("Kept encrypted and never shown again. It wins over the environment's."),
    )
    remove_api_key = forms.BooleanField(label=_("Remove the key that is kept"), required=False)

    class Meta:
        model = CloudProvider
        fields = ["enabled", "api_key", "base_url"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial["api_key"] = ""

    def clean(self) -> dict[str, Any]:
        values = super().clean() or self.cleaned_data
        if self.errors:
            return values
        key = "" if values["remove_api_key"] else values["api_key"] or None
        try:
            with transaction.atomic():
                self.instance = set_provider(
                    name=self.instance.name,
                    actor=self.actor,
                    api_key=key,
                    base_url=values["base_url"],
                    enabled=values["enabled"],
                )
        except Refusal as refusal:
            self.add_error(refusal.field or None, str(refusal))
        return values

    def _post_clean(self) -> None:
        """Nothing is set on the instance here: the service has written the same values."""
