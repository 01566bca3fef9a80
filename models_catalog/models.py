"""Models that a person registered, other names for models, and cloud providers with the models that they list."""

from __future__ import annotations

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from llmlb_site.lib.fields import EncryptedTextField


class CatalogModel(models.Model):
    """A model that a person registered, whether or not a node has it: asked for without a holder it is 503, not 404."""

    model_id = models.CharField(_("model id"), max_length=300, unique=True)
    description = models.TextField(_("description"), blank=True)
    capabilities = models.JSONField(
        _("capabilities"), default=list, blank=True, help_text=_("Empty = told from the model's name.")
    )
    registered_at = models.DateTimeField(_("registered"), default=timezone.now, editable=False)

    class Meta:
        verbose_name = _("catalogue model")
        verbose_name_plural = _("catalogue models")
        ordering = ["model_id"]

    def __str__(self) -> str:
        return self.model_id


class ModelAlias(models.Model):
    """Another name for a model. Requests for the alias go to the model, and their answers carry the alias."""

    alias = models.CharField(_("alias"), max_length=300, unique=True)
    model_id = models.CharField(_("model id"), max_length=300)
    created_at = models.DateTimeField(_("created"), default=timezone.now, editable=False)

    class Meta:
        verbose_name = _("alias")
        verbose_name_plural = _("aliases")
        ordering = ["alias"]
        constraints = [
            models.CheckConstraint(condition=~models.Q(alias=models.F("model_id")), name="alias_is_another_name")
        ]

    def __str__(self) -> str:
        return f"{self.alias} → {self.model_id}"


class ProviderName(models.TextChoices):
    """The cloud providers; the value is the prefix of their models' names."""

    OPENAI = "openai", "OpenAI"
    GOOGLE = "google", "Google"
    ANTHROPIC = "anthropic", "Anthropic"


class CloudProvider(models.Model):
    """What a person set of one provider, and what it last listed. Without a row, the environment alone counts."""

    name = models.CharField(_("provider"), max_length=20, unique=True, choices=ProviderName.choices)
    enabled = models.BooleanField(
        _("enabled"), default=True, help_text=_("Otherwise its models are not listed, and requests for them refused.")
    )
    api_key = EncryptedTextField(_("API key"), blank=True)
    base_url = models.CharField(_("base URL"), max_length=500, blank=True)
    model_list = models.JSONField(_("models"), default=list, editable=False)
    models_at = models.DateTimeField(_("models read"), null=True, editable=False)
    last_checked = models.DateTimeField(_("last checked"), null=True, editable=False)
    last_error = models.CharField(_("last error"), max_length=300, blank=True, editable=False)

    class Meta:
        verbose_name = _("cloud provider")
        verbose_name_plural = _("cloud providers")
        ordering = ["name"]

    def __str__(self) -> str:
        return self.get_name_display()
