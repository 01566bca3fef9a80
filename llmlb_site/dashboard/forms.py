"""Forms of the dashboard's pages. Rules about values are the services'; these only read what was entered."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from access.forms import RefusableForm
from nodes.capability_labels import CHOICES
from nodes.models import Node, NodeStatus, NodeType

_OFF = {"autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}


class NodeFields(RefusableForm):
    """What a person decides about a node, at any time."""

    name = forms.CharField(
        label=_("Name"), max_length=100, help_text=_("How it is called here."), widget=forms.TextInput(attrs=_OFF)
    )
    api_key = forms.CharField(
        label=_("API key"),
        required=False,
        max_length=1000,
        help_text=_("Only if the node asks for one. Kept encrypted, never shown again."),
        widget=forms.PasswordInput(attrs={"autocomplete": "off"}),
    )
    node_type = forms.ChoiceField(
        label=_("Type"), required=False, choices=[("", _("Find out by itself")), *NodeType.choices]
    )
    max_concurrency = forms.IntegerField(
        label=_("Concurrent requests"), required=False, min_value=0, help_text=_("0 = no limit; empty = by its type.")
    )
    weight = forms.IntegerField(
        label=_("Weight"),
        required=False,
        min_value=1,
        initial=1,
        help_text=_("A node of weight 2 is given twice as much."),
    )
    health_check_interval = forms.IntegerField(
        label=_("Health check interval (s)"), required=False, min_value=1, max_value=300, help_text=_("Empty = as all.")
    )
    inference_timeout = forms.IntegerField(
        label=_("Inference time-out (s)"),
        required=False,
        min_value=10,
        max_value=3600,
        help_text=_("Longest time without a byte. Empty = as all."),
    )
    tags = forms.CharField(label=_("Tags"), required=False, help_text=_("Separated by commas."))
    notes = forms.CharField(label=_("Notes"), required=False, widget=forms.Textarea(attrs={"rows": 3}))

    def values(self) -> dict[str, Any]:
        """What was entered, as the node services take it."""
        entered = dict(self.cleaned_data)
        entered["tags"] = [tag.strip() for tag in entered["tags"].split(",") if tag.strip()]
        entered["weight"] = entered["weight"] or 1
        entered["node_type"] = entered["node_type"] or None
        return entered


class NodeForm(NodeFields):
    """A node that is to be registered."""

    base_url = forms.CharField(
        label=_("Base URL"),
        max_length=500,
        help_text=_("For example http://10.0.0.5:11434, without /v1."),
        widget=forms.TextInput(attrs={"inputmode": "url", "placeholder": "http://", **_OFF}),
    )


class NodeChangeForm(NodeFields):
    """A registered node: an empty API key means the one that it has."""

    forget_api_key = forms.BooleanField(label=_("Forget the API key"), required=False)

    @staticmethod
    def initial_of(node: Node) -> dict[str, Any]:
        names = ("name", "max_concurrency", "weight", "health_check_interval", "inference_timeout", "notes")
        initial = {name: getattr(node, name) for name in names}
        chosen = node.node_type if node.node_type_source == "manual" else ""
        return {**initial, "tags": ", ".join(node.tags), "node_type": chosen}

    def values(self) -> dict[str, Any]:
        entered = super().values()
        forget = entered.pop("forget_api_key")
        if forget:
            entered["api_key"] = None
        elif not entered["api_key"]:
            del entered["api_key"]
        return entered


class NodeFilterForm(forms.Form):
    """What the list of nodes is narrowed to. Anything that does not fit is ignored."""

    q = forms.CharField(
        label=_("Search"),
        required=False,
        max_length=200,
        widget=forms.TextInput(attrs={"type": "search", "placeholder": _("Name, address, model"), **_OFF}),
    )
    status = forms.ChoiceField(
        label=_("Status"),
        required=False,
        choices=[("", _("All")), *NodeStatus.choices, ("draining", _("draining")), ("disabled", _("disabled"))],
    )
    type = forms.ChoiceField(label=_("Type"), required=False, choices=[("", _("All")), *NodeType.choices])
    excluded = forms.BooleanField(label=_("With excluded models"), required=False)


class ModelFilterForm(forms.Form):
    q = forms.CharField(
        label=_("Search"),
        required=False,
        max_length=300,
        widget=forms.TextInput(attrs={"type": "search", "placeholder": _("Model or alias"), **_OFF}),
    )


class AliasForm(RefusableForm):
    alias = forms.CharField(
        label=_("Alias"),
        max_length=300,
        help_text=_("The name that applications will ask for."),
        widget=forms.TextInput(attrs=_OFF),
    )
    model_id = forms.CharField(
        label=_("Model"), max_length=300, widget=forms.TextInput(attrs={"list": "model-ids", **_OFF})
    )


class CatalogueForm(RefusableForm):
    model_id = forms.CharField(label=_("Model id"), max_length=300, widget=forms.TextInput(attrs=_OFF))
    description = forms.CharField(label=_("Description"), required=False, widget=forms.Textarea(attrs={"rows": 2}))
    capabilities = forms.MultipleChoiceField(
        label=_("Capabilities"),
        required=False,
        choices=CHOICES,
        widget=forms.CheckboxSelectMultiple,
        help_text=_("None = told from the model's name."),
    )


class ModelDownloadForm(RefusableForm):
    """What a node is to fetch."""

    model = forms.CharField(
        label=_("Model"),
        max_length=300,
        help_text=_("As this node names it: a repository such as org/name, or a name such as llama3.2:3b with Ollama."),
        widget=forms.TextInput(attrs=_OFF),
    )
    quantization = forms.CharField(
        label=_("Quantization"),
        required=False,
        max_length=64,
        help_text=_("Such as Q4_K_M, where the repository has several."),
        widget=forms.TextInput(attrs=_OFF),
    )


class ModelDeleteForm(RefusableForm):
    """Which model a node is to delete, of those that it has."""

    model = forms.ChoiceField(label=_("Model"))

    def __init__(self, *args: Any, names: Iterable[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["model"]
        assert isinstance(field, forms.ChoiceField)
        field.choices = [(name, name) for name in names]
