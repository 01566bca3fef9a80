"""Nodes, the models that each can execute, and how each check of them went."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from llmlb_site.lib.fields import EncryptedTextField


class NodeType(models.TextChoices):
    XLLM = "xllm", "xLLM"
    OLLAMA = "ollama", "Ollama"
    LM_STUDIO = "lm_studio", "LM Studio"
    VLLM = "vllm", "vLLM"
    LLAMA_CPP = "llama_cpp", "llama.cpp"
    OPENAI_COMPATIBLE = "openai_compatible", _("OpenAI-compatible")


# How many requests a server of each kind takes at once, where neither it nor the operator says.
DEFAULT_CONCURRENCY: Final[dict[NodeType, int]] = {
    NodeType.XLLM: 1,
    NodeType.LLAMA_CPP: 1,
    NodeType.OLLAMA: 4,
    NodeType.LM_STUDIO: 4,
    NodeType.VLLM: 256,
    NodeType.OPENAI_COMPATIBLE: 64,
}


class TypeSource(models.TextChoices):
    AUTO = "auto", _("detected")
    MANUAL = "manual", _("set by a person")


class NodeStatus(models.TextChoices):
    PENDING = "pending", _("pending")
    ONLINE = "online", _("online")
    OFFLINE = "offline", _("offline")
    ERROR = "error", _("error")


class GpuBackend(models.TextChoices):
    METAL = "metal", "Metal"
    CUDA = "cuda", "CUDA"
    ROCM = "rocm", "ROCm"
    DIRECTML = "directml", "DirectML"
    CPU = "cpu", "CPU"


class Node(models.Model):
    """One inference server. Routed to while it is enabled, online and not draining."""

    name = models.CharField(_("name"), max_length=100, unique=True)
    base_url = models.CharField(
        _("base URL"),
        max_length=500,
        unique=True,
        help_text=_("For example http://10.0.0.5:11434, without /v1."),
    )
    api_key = EncryptedTextField(
        _("API key"),
        blank=True,
        default="",
        help_text=_("Sent to this node as Bearer token. Never shown again."),
    )
    node_type = models.CharField(_("type"), max_length=20, choices=NodeType.choices, default=NodeType.OPENAI_COMPATIBLE)
    node_type_source = models.CharField(max_length=6, choices=TypeSource.choices, default=TypeSource.AUTO)
    node_type_reason = models.CharField(max_length=200, blank=True)
    node_type_detected_at = models.DateTimeField(null=True, blank=True)
    status = models.CharField(_("status"), max_length=8, choices=NodeStatus.choices, default=NodeStatus.PENDING)
    enabled = models.BooleanField(_("enabled"), default=True)
    draining = models.BooleanField(
        _("draining"), default=False, help_text=_("Takes no new requests; running ones end.")
    )

    max_concurrency = models.PositiveIntegerField(
        _("concurrent requests"),
        null=True,
        blank=True,
        help_text=_("0 = no limit; empty = by the node's type."),
    )
    reported_concurrency = models.PositiveIntegerField(null=True, blank=True, editable=False)
    weight = models.PositiveIntegerField(_("weight"), default=1, validators=[MinValueValidator(1)])
    tags = models.JSONField(_("tags"), default=list, blank=True)
    notes = models.TextField(_("notes"), blank=True)
    health_check_interval = models.PositiveIntegerField(
        _("health check interval (s)"),
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(300)],
        help_text=_("Empty = LLMLB_HEALTH_CHECK_INTERVAL."),
    )
    inference_timeout = models.PositiveIntegerField(
        _("inference time-out (s)"),
        null=True,
        blank=True,
        validators=[MinValueValidator(10), MaxValueValidator(3600)],
        help_text=_("Longest time without a byte. Empty = LLMLB_INFERENCE_TIMEOUT_SECS."),
    )

    gpu_backend = models.CharField(_("GPU backend"), max_length=10, choices=GpuBackend.choices, blank=True)
    gpu_count = models.PositiveIntegerField(null=True, blank=True)
    gpu_memory_total = models.BigIntegerField(null=True, blank=True, help_text=_("Bytes."))
    gpu_memory_used = models.BigIntegerField(null=True, blank=True, help_text=_("Bytes."))
    gpu_usage = models.FloatField(null=True, blank=True, help_text=_("0–100."))
    gpu_score = models.PositiveIntegerField(null=True, blank=True, help_text=_("0–10000."))
    cpu_usage = models.FloatField(null=True, blank=True, help_text=_("0–100."))
    memory_total = models.BigIntegerField(null=True, blank=True, help_text=_("Bytes."))
    memory_used = models.BigIntegerField(null=True, blank=True, help_text=_("Bytes."))
    active_requests = models.PositiveIntegerField(
        null=True, blank=True, help_text=_("As the node counts them, whoever sent them.")
    )
    # When it last told use and memory; what it told long ago says nothing of now.
    figures_at = models.DateTimeField(null=True, blank=True, editable=False)
    devices = models.JSONField(default=list, blank=True, editable=False)
    loaded_models = models.JSONField(default=list, blank=True, editable=False)
    refused_models = models.JSONField(
        default=list, blank=True, editable=False, help_text=_("Models that it has and cannot execute, with the reason.")
    )

    latency_ms = models.FloatField(
        _("latency (ms)"), null=True, blank=True, help_text=_("Of the checks; moving average, α 0.2.")
    )
    version = models.CharField(_("version"), max_length=60, blank=True)
    native_apis = models.JSONField(
        _("APIs of its own"),
        default=list,
        blank=True,
        editable=False,
        help_text=_("Paths besides chat that it serves itself. Others are translated for it."),
    )
    server_started_at = models.CharField(max_length=60, blank=True, editable=False)
    registered_at = models.DateTimeField(_("registered"), default=timezone.now, editable=False)
    last_seen = models.DateTimeField(_("last seen"), null=True, blank=True)
    last_error = models.CharField(_("last error"), max_length=300, blank=True)
    error_count = models.PositiveIntegerField(default=0)
    consecutive_failures = models.PositiveIntegerField(default=0)
    connect_failed = models.BooleanField(default=False, editable=False)
    next_poll_at = models.DateTimeField(default=timezone.now, db_index=True, editable=False)
    total_requests = models.BigIntegerField(default=0)
    successful_requests = models.BigIntegerField(default=0)
    failed_requests = models.BigIntegerField(default=0)

    class Meta:
        verbose_name = _("node")
        verbose_name_plural = _("nodes")
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(condition=models.Q(weight__gte=1), name="node_weight_positive"),
            models.CheckConstraint(condition=models.Q(status__in=NodeStatus.values), name="node_status_known"),
            models.CheckConstraint(condition=models.Q(node_type__in=NodeType.values), name="node_type_known"),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def is_routable(self) -> bool:
        return self.enabled and not self.draining and self.status == NodeStatus.ONLINE

    @property
    def concurrency_limit(self) -> int:
        """How many requests it is given at once; 0 means no limit."""
        if self.max_concurrency is not None:
            return self.max_concurrency
        return self.reported_concurrency or DEFAULT_CONCURRENCY[NodeType(self.node_type)]

    @property
    def effective_interval(self) -> int:
        return self.health_check_interval or int(settings.LLMLB.health_check_interval)

    @property
    def effective_inference_timeout(self) -> float:
        return float(self.inference_timeout or settings.LLMLB.inference_timeout)

    def poll_pause(self) -> timedelta:
        """Time between the starts of two checks: under the interval, so that the result lies within it.

        By default 3.2 s. A node that goes silent right after a check is then known as dead after at most that, a tick
        and LLMLB_PROBE_TIMEOUT: 9.3 s of the promised 10. Beat ticks once a second, so checks start every 4 s.
        """
        return timedelta(seconds=self.effective_interval - min(1.8, 0.36 * self.effective_interval))


class NodeModel(models.Model):
    """One model that one node listed in its last good `/v1/models`: executable, and excluded or not."""

    node = models.ForeignKey(Node, on_delete=models.CASCADE, related_name="models", verbose_name=_("node"))
    model_id = models.CharField(_("model"), max_length=300)
    listed_at = models.DateTimeField(default=timezone.now)
    owned_by = models.CharField(max_length=100, blank=True)
    context_length = models.PositiveIntegerField(null=True, blank=True)
    capabilities = models.JSONField(
        _("capabilities"),
        default=list,
        blank=True,
        help_text=_("Set by a person. Empty = as the node or the name says."),
    )
    reported_capabilities = models.JSONField(_("capabilities as the node says"), default=dict, blank=True)
    excluded_at = models.DateTimeField(_("excluded since"), null=True, blank=True, db_index=True)
    excluded_reason = models.CharField(_("reason"), max_length=200, blank=True)
    excluded_kind = models.CharField(
        max_length=32, blank=True, editable=False, help_text=_("The kind of request that failed; its probe.")
    )
    failure_count = models.PositiveIntegerField(_("failures"), default=0)
    next_probe_at = models.DateTimeField(null=True, blank=True, editable=False, db_index=True)
    probe_failures = models.PositiveIntegerField(default=0, editable=False)

    class Meta:
        verbose_name = _("model on a node")
        verbose_name_plural = _("models on nodes")
        ordering = ["model_id"]
        constraints = [models.UniqueConstraint(fields=["node", "model_id"], name="node_model_once")]
        indexes = [models.Index(fields=["model_id"])]

    def __str__(self) -> str:
        return f"{self.model_id} @ {self.node}"

    @property
    def is_excluded(self) -> bool:
        return self.excluded_at is not None


class PollResult(models.Model):
    """How one check of one node went. Kept 30 days."""

    node = models.ForeignKey(Node, on_delete=models.CASCADE, related_name="polls", verbose_name=_("node"))
    at = models.DateTimeField(_("time"), default=timezone.now, db_index=True)
    ok = models.BooleanField(_("answered"))
    latency_ms = models.FloatField(_("latency (ms)"), null=True, blank=True)
    model_count = models.PositiveIntegerField(_("models"), null=True, blank=True)
    error = models.CharField(_("error"), max_length=300, blank=True)
    status_before = models.CharField(max_length=8, choices=NodeStatus.choices)
    status_after = models.CharField(max_length=8, choices=NodeStatus.choices)

    class Meta:
        verbose_name = _("check")
        verbose_name_plural = _("checks")
        ordering = ["-id"]
        indexes = [models.Index(fields=["node", "-id"])]

    def __str__(self) -> str:
        return f"{self.node} {self.at:%Y-%m-%d %H:%M:%S} {'ok' if self.ok else self.error}"


class DownloadState(models.TextChoices):
    QUEUED = "queued", _("queued")
    RUNNING = "running", _("running")
    SUCCESS = "success", _("done")
    FAILED = "failed", _("failed")
    CANCELLED = "cancelled", _("cancelled")


UNFINISHED: Final = (DownloadState.QUEUED, DownloadState.RUNNING)


class Download(models.Model):
    """One model that a node was asked to fetch, and how far it is. Sizes are bytes. Kept 30 days."""

    node = models.ForeignKey(Node, on_delete=models.CASCADE, related_name="downloads", verbose_name=_("node"))
    model = models.CharField(_("model"), max_length=300, help_text=_("As it was asked for."))
    options = models.JSONField(default=dict, blank=True, editable=False)
    state = models.CharField(
        _("state"), max_length=9, choices=DownloadState.choices, default=DownloadState.QUEUED, db_index=True
    )
    downloaded_bytes = models.BigIntegerField(_("downloaded"), default=0)
    total_bytes = models.BigIntegerField(_("size"), null=True, blank=True)
    bytes_per_second = models.FloatField(_("speed"), default=0)
    detail = models.CharField(max_length=200, blank=True, help_text=_("What the node says that it does."))
    error = models.CharField(_("error"), max_length=300, blank=True)
    requested_by = models.CharField(_("requested by"), max_length=200, blank=True)
    created_at = models.DateTimeField(_("begun"), default=timezone.now)
    updated_at = models.DateTimeField(default=timezone.now)
    finished_at = models.DateTimeField(_("ended"), null=True, blank=True, db_index=True)
    # The node's own name for it; which worker follows it, by the time until which it says so; how often that broke off.
    remote_id = models.CharField(max_length=100, blank=True, editable=False)
    followed_until = models.DateTimeField(null=True, blank=True, editable=False)
    interruptions = models.PositiveIntegerField(default=0, editable=False)

    class Meta:
        verbose_name = _("download")
        verbose_name_plural = _("downloads")
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(condition=models.Q(state__in=DownloadState.values), name="download_state_known"),
            models.UniqueConstraint(
                fields=["node", "model"],
                condition=models.Q(state__in=["queued", "running"]),
                name="download_once_at_a_time",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.model} @ {self.node}"

    @property
    def is_unfinished(self) -> bool:
        return self.state in UNFINISHED

    @property
    def share(self) -> float | None:
        """From 0 to 1; None where the total is not known."""
        if self.state == DownloadState.SUCCESS:
            return 1.0
        return min(1.0, self.downloaded_bytes / self.total_bytes) if self.total_bytes else None
