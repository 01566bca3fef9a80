"""Forms of the node admin. Registering happens while the form is checked: what a node answers is part of the check."""

from __future__ import annotations

from typing import Any, ClassVar

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from access.audit import Actor
from access.refusals import Refusal
from nodes import services
from nodes.capability_labels import CHOICES
from nodes.fields import EDITABLE, check_fields, clean_tags
from nodes.models import Node, NodeModel, NodeType, TypeSource

_WIDE = {"class": "vTextField"}  # the admin's own


class NodeModelForm(forms.ModelForm[NodeModel]):
    """What a person says that a model on a node can do."""

    capabilities = forms.MultipleChoiceField(
        label=_("Capabilities"),
        required=False,
        choices=CHOICES,
        widget=forms.CheckboxSelectMultiple,
        help_text=_("None = as the node says, else as the model's name says."),
    )

    class Meta:
        model = NodeModel
        fields = ["capabilities"]


class TagsField(forms.CharField):
    """Tags, separated by commas."""

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(value) if isinstance(value, list) else value

    def clean(self, value: Any) -> list[str]:
        text = super().clean(value) or ""
        try:
            return clean_tags(text.split(","))
        except ValidationError as error:
            raise ValidationError(error.message_dict["tags"]) from error


class NodeForm(forms.ModelForm[Node]):
    """What a person may set on a node; the key is never shown again."""

    actor: ClassVar[Actor]

    api_key = forms.CharField(
        label=_("API key"),
        required=False,
        max_length=4000,
        strip=True,
        widget=forms.PasswordInput(attrs={"autocomplete": "off", **_WIDE}),
        help_text=_("Sent to this node as Bearer token. Never shown again."),
    )
    node_type = forms.ChoiceField(
        label=_("Type"),
        required=False,
        choices=[("", _("Detect it")), *NodeType.choices],
        help_text=_("A choice sticks; otherwise it is detected anew whenever the node comes back."),
    )
    tags = TagsField(
        label=_("Tags"), required=False, help_text=_("Separated by commas."), widget=forms.TextInput(attrs=_WIDE)
    )

    class Meta:
        model = Node
        fields: tuple[str, ...] = (
            "name",
            "base_url",
            "api_key",
            "node_type",
            "enabled",
            "max_concurrency",
            "weight",
            "tags",
            "health_check_interval",
            "inference_timeout",
            "notes",
        )
        widgets = {"name": forms.TextInput(attrs=_WIDE), "base_url": forms.TextInput(attrs=_WIDE)}

    def _settings(self) -> dict[str, Any]:
        """The values for the services, under their names there."""
        return {name: value for name, value in self.cleaned_data.items() if name in EDITABLE}

    def _post_clean(self) -> None:
        """Nothing is set on the instance here: the services check and write the same values."""

    def _blame(self, error: Exception) -> None:
        if isinstance(error, Refusal):
            self.add_error(error.field if error.field in self.fields else None, str(error))
        elif isinstance(error, ValidationError):
            for name, messages in error.message_dict.items():
                self.add_error(name if name in self.fields else None, messages)


class NodeRegistrationForm(NodeForm):
    """Registers a node. An answer that is none, or no model list, is shown as an error of the form."""

    allow_unreachable = forms.BooleanField(
        label=_("Save it even if it does not answer now"),
        required=False,
        help_text=_("It is kept as pending, and taken in as soon as it answers."),
    )

    def clean(self) -> dict[str, Any]:
        values = super().clean() or self.cleaned_data
        if self.errors:
            return values
        try:
            self.instance = services.register_node(
                base_url=values["base_url"],
                node_type=values["node_type"] or None,
                allow_unreachable=values["allow_unreachable"],
                actor=self.actor,
                **self._settings(),
            )
        except (Refusal, ValidationError) as error:
            self._blame(error)
        return values


class NodeChangeForm(NodeForm):
    """Changes a node. The base URL stays: another address is another node."""

    remove_api_key = forms.BooleanField(label=_("Remove the API key"), required=False)

    class Meta(NodeForm.Meta):
        fields = tuple(name for name in NodeForm.Meta.fields if name != "base_url")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial["api_key"] = ""
        if self.instance.node_type_source == TypeSource.AUTO:
            self.initial["node_type"] = ""

    def clean(self) -> dict[str, Any]:
        values = super().clean() or self.cleaned_data
        if not self.errors:
            try:
                check_fields(Node.objects.get(pk=self.instance.pk), self._settings())
            except ValidationError as error:
                self._blame(error)
        return values

    def changes(self) -> dict[str, Any]:
        """What was changed, as `update_node` takes it."""
        changed = {name: value for name, value in self._settings().items() if name in self.changed_data}
        if "node_type" in self.changed_data:
            changed["node_type"] = self.cleaned_data["node_type"] or None
        if self.cleaned_data["remove_api_key"]:
            changed["api_key"] = None
        return changed
