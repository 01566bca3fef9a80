"""The catalogue's forms in Django's admin: they refuse what the services refuse."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from access.refusals import Refusal
from models_catalog.capabilities import PHRASES
from models_catalog.models import CatalogModel, ModelAlias
from models_catalog.services import check_alias, check_model_id


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
        choices=list(PHRASES.items()),
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
