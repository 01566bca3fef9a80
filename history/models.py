"""One narrow row per request, its attempts, its bodies apart, and token totals that outlive them all."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from history.choices import Outcome, TokenSource


class RequestRecord(models.Model):
    """One request, however it ended. Names are copied in: the row stays true when a node or key is gone."""

    request_id = models.CharField(_("request id"), max_length=64)
    started_at = models.DateTimeField(_("time"))
    kind = models.CharField(_("kind"), max_length=32)
    model = models.CharField(_("model"), max_length=300, blank=True)
    served_model = models.CharField(_("served model"), max_length=300, blank=True)
    node_id = models.BigIntegerField(null=True)
    node_name = models.CharField(_("node"), max_length=100, blank=True)
    api_key_id = models.BigIntegerField(null=True)
    api_key_name = models.CharField(_("API key"), max_length=100, blank=True)
    client_ip = models.CharField(_("client"), max_length=45, blank=True)
    outcome = models.CharField(_("outcome"), max_length=12, choices=Outcome.choices)
    status = models.PositiveSmallIntegerField(_("status"))
    error_code = models.CharField(_("error code"), max_length=60, blank=True)
    error_message = models.CharField(_("error"), max_length=300, blank=True)
    stream = models.BooleanField(_("streamed"), default=False)
    poison = models.BooleanField(
        _("poison"), default=False, help_text=_("Two nodes failed on it: its exclusions were taken back.")
    )
    attempt_count = models.PositiveSmallIntegerField(_("attempts"), default=0)
    duration_ms = models.FloatField(_("duration (ms)"))
    queue_ms = models.FloatField(_("waited (ms)"), default=0)
    first_byte_ms = models.FloatField(_("first byte (ms)"), null=True)
    prompt_tokens = models.PositiveIntegerField(_("prompt tokens"), null=True)
    completion_tokens = models.PositiveIntegerField(_("completion tokens"), null=True)
    total_tokens = models.PositiveIntegerField(_("tokens"), null=True)
    token_source = models.CharField(max_length=9, choices=TokenSource.choices, blank=True)
    tokens_per_second = models.FloatField(_("tokens/s"), null=True)
    bytes_in = models.PositiveBigIntegerField(default=0)
    bytes_out = models.PositiveBigIntegerField(default=0)

    class Meta:
        verbose_name = _("request")
        verbose_name_plural = _("requests")
        ordering = ["-id"]
        permissions = [("view_payload", _("Can reveal the bodies of requests"))]
        indexes = [
            models.Index(fields=["started_at", "outcome"]),  # both: an hour of traffic is counted from the index alone
            models.Index(fields=["request_id"]),
            models.Index(fields=["model", "-id"]),
            models.Index(fields=["node_id", "-id"]),
            models.Index(fields=["api_key_id", "-id"]),
            # Of the few that failed alone: `filters.FAILED` and `filters.NOT_200` let them be used.
            models.Index(
                fields=["outcome", "-id"], condition=~models.Q(outcome="success"), name="history_req_outcome_89b39d_idx"
            ),
            models.Index(
                fields=["status", "-id"], condition=~models.Q(status=200), name="history_req_status_fe6956_idx"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.started_at:%Y-%m-%d %H:%M:%S} {self.kind} {self.model} {self.status}"


class RequestAttempt(models.Model):
    """One try of a request on one node."""

    # No constraint in the database: it would not let a day of requests be dropped at once.
    record = models.ForeignKey(RequestRecord, on_delete=models.CASCADE, related_name="attempts", db_constraint=False)
    number = models.PositiveSmallIntegerField(_("attempt"))
    node_id = models.BigIntegerField()
    node_name = models.CharField(_("node"), max_length=100)
    selection_reason = models.CharField(_("chosen because"), max_length=60)
    status = models.PositiveSmallIntegerField(_("node's status"), null=True)
    error = models.CharField(_("error"), max_length=200, blank=True)
    excluded = models.BooleanField(_("excluded the model"), default=False)
    duration_ms = models.FloatField(_("duration (ms)"))

    class Meta:
        verbose_name = _("attempt")
        verbose_name_plural = _("attempts")
        ordering = ["record_id", "number"]

    def __str__(self) -> str:
        return f"{self.number}. {self.node_name} {self.status or self.error}"


class RequestPayload(models.Model):
    """What was sent and what came back: compressed, and encrypted unless the operator chose otherwise."""

    record = models.OneToOneField(
        RequestRecord, on_delete=models.CASCADE, primary_key=True, related_name="payload", db_constraint=False
    )
    encrypted = models.BooleanField()
    bodies = models.BinaryField(help_text=_("Request and response in one, because sealing costs as much as storing."))
    request_truncated = models.BooleanField(default=False)
    response_truncated = models.BooleanField(default=False)

    class Meta:
        verbose_name = _("payload")
        verbose_name_plural = _("payloads")

    def __str__(self) -> str:
        return f"payload of {self.record_id}"


class SearchTerm(models.Model):
    """A text that occurs in the requests of a day: to look for a part of it is to look here, not in every row."""

    day = models.DateField()
    field = models.CharField(max_length=20)
    text = models.CharField(max_length=300)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["day", "field", "text"], name="search_term_once")]

    def __str__(self) -> str:
        return self.text


class TokenTotal(models.Model):
    """Requests and tokens per day, node, model and key. Kept for ever, whatever happens to those (SPEC-5045f436)."""

    day = models.DateField(_("day"))
    node_id = models.BigIntegerField(default=0)
    node_name = models.CharField(_("node"), max_length=100, blank=True)
    model = models.CharField(_("model"), max_length=300, blank=True)
    api_key_id = models.BigIntegerField(default=0)
    api_key_name = models.CharField(_("API key"), max_length=100, blank=True)
    requests = models.BigIntegerField(_("requests"), default=0)
    failures = models.BigIntegerField(_("failures"), default=0)
    prompt_tokens = models.BigIntegerField(_("prompt tokens"), default=0)
    completion_tokens = models.BigIntegerField(_("completion tokens"), default=0)
    estimated_requests = models.BigIntegerField(_("with estimated tokens"), default=0)
    duration_ms = models.FloatField(_("duration (ms)"), default=0)

    class Meta:
        verbose_name = _("daily total")
        verbose_name_plural = _("daily totals")
        ordering = ["-day"]
        constraints = [
            models.UniqueConstraint(fields=["day", "node_id", "model", "api_key_id"], name="token_total_once")
        ]

    def __str__(self) -> str:
        return f"{self.day} {self.model} {self.node_name}"
