"""What the node API reads and writes. Names that upstream's scripts know stand beside ours."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from nodes.capabilities import PHRASES
from nodes.models import GpuBackend, Node, NodeModel, NodeStatus, NodeType, TypeSource


class NodeQuery(serializers.Serializer[Any]):
    """Filters of the list. All that are given must hold."""

    status = serializers.ChoiceField(choices=NodeStatus.choices, required=False)
    type = serializers.ChoiceField(choices=NodeType.choices, required=False)
    tag = serializers.CharField(required=False, help_text="A tag of the node, exactly.")
    model = serializers.CharField(required=False, help_text="A model id that the node lists, exactly.")
    search = serializers.CharField(required=False, help_text="A part of name, base URL or notes.")


class NodeSettings(serializers.Serializer[Any]):
    """What can be set on a node at any time."""

    name = serializers.CharField(max_length=100)
    api_key = serializers.CharField(
        required=False,
        write_only=True,
        allow_null=True,
        allow_blank=True,
        max_length=4000,
        trim_whitespace=False,
        help_text="Sent to the node as Bearer token, never returned. null removes it.",
    )
    node_type = serializers.ChoiceField(
        choices=NodeType.choices, required=False, allow_null=True, help_text="A choice sticks; null: detected."
    )
    endpoint_type = serializers.ChoiceField(
        choices=NodeType.choices, required=False, allow_null=True, help_text="The same as node_type."
    )
    enabled = serializers.BooleanField(required=False)
    max_concurrency = serializers.IntegerField(
        required=False, allow_null=True, min_value=0, max_value=1_000_000, help_text="0: no limit; null: by type."
    )
    weight = serializers.IntegerField(required=False, min_value=1, max_value=1_000_000)
    tags = serializers.ListField(child=serializers.CharField(max_length=50), required=False, max_length=50)
    notes = serializers.CharField(required=False, allow_blank=True, max_length=10_000)
    health_check_interval_secs = serializers.IntegerField(
        source="health_check_interval", required=False, allow_null=True, min_value=1, max_value=300
    )
    inference_timeout_secs = serializers.IntegerField(
        source="inference_timeout", required=False, allow_null=True, min_value=10, max_value=3600
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """One value for the type, under our name for it."""
        if "endpoint_type" in attrs:
            attrs.setdefault("node_type", attrs.pop("endpoint_type"))
        return attrs


class NodeRegistration(NodeSettings):
    base_url = serializers.CharField(max_length=500, help_text="http or https, without /v1.")


class NodeChange(NodeSettings):
    """Every field is optional. `base_url` cannot be changed: it is refused unless it is the same."""

    name = serializers.CharField(max_length=100, required=False)
    base_url = serializers.CharField(max_length=500, required=False)


class ExcludedModel(serializers.Serializer[NodeModel]):
    model = serializers.CharField(source="model_id")
    reason = serializers.CharField(source="excluded_reason")
    since = serializers.DateTimeField(source="excluded_at")


class GpuDevice(serializers.Serializer[Any]):
    name = serializers.CharField(allow_blank=True)
    memory_total = serializers.IntegerField(allow_null=True)
    memory_used = serializers.IntegerField(allow_null=True)
    usage = serializers.FloatField(allow_null=True)
    score = serializers.IntegerField(allow_null=True)


class RefusedModel(serializers.Serializer[Any]):
    """A model that the node has and cannot execute."""

    model = serializers.CharField()
    reason = serializers.CharField(allow_blank=True)


class DeviceInfo(serializers.Serializer[Node]):
    """As far as the node reports it. Memory is bytes, usage 0 to 100."""

    gpu_backend = serializers.ChoiceField(choices=GpuBackend.choices, allow_blank=True)
    gpu_count = serializers.IntegerField(allow_null=True)
    gpu_memory_total = serializers.IntegerField(allow_null=True)
    gpu_memory_used = serializers.IntegerField(allow_null=True)
    gpu_usage = serializers.FloatField(allow_null=True)
    gpu_score = serializers.IntegerField(allow_null=True, help_text="0 to 10000.")
    cpu_usage = serializers.FloatField(allow_null=True)
    memory_total = serializers.IntegerField(allow_null=True)
    memory_used = serializers.IntegerField(allow_null=True)
    devices = GpuDevice(many=True)
    active_requests = serializers.IntegerField(allow_null=True, help_text="As the node counts them, whoever sent them.")
    figures_at = serializers.DateTimeField(allow_null=True, help_text="When it last told use and memory.")


class NodeAnswer(serializers.ModelSerializer[Node]):
    """One node. Wants its models prefetched."""

    status = serializers.ChoiceField(choices=NodeStatus.choices)
    node_type = serializers.ChoiceField(choices=NodeType.choices)
    endpoint_type = serializers.ChoiceField(source="node_type", choices=NodeType.choices)
    endpoint_type_source = serializers.ChoiceField(source="node_type_source", choices=TypeSource.choices)
    endpoint_type_reason = serializers.CharField(source="node_type_reason")
    endpoint_type_detected_at = serializers.DateTimeField(source="node_type_detected_at", allow_null=True)
    has_api_key = serializers.SerializerMethodField()
    concurrency_limit = serializers.IntegerField(help_text="In force; 0: no limit.")
    health_check_interval_secs = serializers.IntegerField(source="effective_interval")
    inference_timeout_secs = serializers.SerializerMethodField()
    tags = serializers.ListField(child=serializers.CharField())
    device_info = DeviceInfo(source="*")
    native_apis = serializers.ListField(
        child=serializers.CharField(), help_text="Paths besides chat that it serves itself; others are translated."
    )
    model_count = serializers.SerializerMethodField()
    executable_models = serializers.SerializerMethodField()
    excluded_models = serializers.SerializerMethodField()

    class Meta:
        model = Node
        fields = (
            "id",
            "name",
            "base_url",
            "status",
            "enabled",
            "draining",
            "node_type",
            "endpoint_type",
            "endpoint_type_source",
            "endpoint_type_reason",
            "endpoint_type_detected_at",
            "has_api_key",
            "max_concurrency",
            "concurrency_limit",
            "weight",
            "tags",
            "notes",
            "health_check_interval_secs",
            "inference_timeout_secs",
            "latency_ms",
            "version",
            "native_apis",
            "device_info",
            "last_seen",
            "last_error",
            "error_count",
            "registered_at",
            "model_count",
            "total_requests",
            "successful_requests",
            "failed_requests",
            "executable_models",
            "excluded_models",
        )
        read_only_fields = fields

    def get_has_api_key(self, node: Node) -> bool:
        return bool(node.api_key)

    def get_inference_timeout_secs(self, node: Node) -> int:
        return int(node.effective_inference_timeout)

    def get_model_count(self, node: Node) -> int:
        return len(node.models.all())

    @extend_schema_field(serializers.ListField(child=serializers.CharField()))
    def get_executable_models(self, node: Node) -> list[str]:
        return [row.model_id for row in node.models.all()]

    @extend_schema_field(ExcludedModel(many=True))
    def get_excluded_models(self, node: Node) -> Any:
        return [ExcludedModel(row).data for row in node.models.all() if row.is_excluded]


class NodeModelAnswer(serializers.ModelSerializer[NodeModel]):
    """One model on one node."""

    capabilities = serializers.ListField(child=serializers.CharField(), help_text="As a person has set them.")
    reported_capabilities = serializers.DictField(
        child=serializers.BooleanField(), help_text="As the node says; what it does not speak of is not known."
    )
    max_tokens = serializers.IntegerField(source="context_length", allow_null=True, help_text="Context length.")
    excluded = serializers.BooleanField(source="is_excluded")
    reason = serializers.CharField(source="excluded_reason", allow_blank=True)
    since = serializers.DateTimeField(source="excluded_at", allow_null=True)

    class Meta:
        model = NodeModel
        fields = (
            "model_id",
            "owned_by",
            "capabilities",
            "reported_capabilities",
            "max_tokens",
            "listed_at",
            "excluded",
            "reason",
            "since",
            "failure_count",
        )
        read_only_fields = fields


class NodeModelChange(serializers.Serializer[Any]):
    model = serializers.CharField(help_text="As the node lists it, exactly.")
    capabilities = serializers.ListField(
        child=serializers.ChoiceField(choices=list(PHRASES.items())),
        help_text="All that it can do; empty: as the node or the name says.",
    )


class NodeDetail(NodeAnswer):
    models = NodeModelAnswer(many=True)
    loaded_models = serializers.ListField(child=serializers.CharField(), help_text="In memory now, as far as it tells.")
    refused_models = RefusedModel(many=True)

    class Meta(NodeAnswer.Meta):
        fields = (*NodeAnswer.Meta.fields, "models", "loaded_models", "refused_models")  # type: ignore[assignment]  # a longer tuple of the same kind


class NodeList(serializers.Serializer[Any]):
    """`endpoints` and `nodes` are the same list, under its two names."""

    endpoints = NodeAnswer(many=True)
    nodes = NodeAnswer(many=True)
    total = serializers.IntegerField()


class NodeModelList(serializers.Serializer[Any]):
    models = NodeModelAnswer(many=True)
    total = serializers.IntegerField()


class NodeInfo(serializers.Serializer[Any]):
    version = serializers.CharField(allow_blank=True)
    model_count = serializers.IntegerField()


class TestAnswer(serializers.Serializer[Any]):
    __test__ = False  # no test case, whatever its name begins with

    success = serializers.BooleanField()
    latency_ms = serializers.FloatField(allow_null=True)
    error = serializers.CharField(allow_null=True)
    models_found = serializers.ListField(child=serializers.CharField())
    endpoint_info = NodeInfo()


class SyncAnswer(serializers.Serializer[Any]):
    synced_models = serializers.ListField(child=serializers.CharField())
    added = serializers.IntegerField()
    removed = serializers.IntegerField()
    updated = serializers.IntegerField()


class ReincludeRequest(serializers.Serializer[Any]):
    model = serializers.CharField(required=False, allow_null=True, help_text="Without it: every excluded model.")


class ReincludeAnswer(serializers.Serializer[Any]):
    reincluded = serializers.IntegerField()
