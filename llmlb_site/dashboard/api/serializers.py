"""The answers of the dashboard's API, as its OpenAPI document shows them. Times in names are units; shares are of 1."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers


class Answer(serializers.Serializer[Any]):
    """Read-only: nothing is ever sent to these paths."""


class VersionAnswer(Answer):
    version = serializers.CharField()


class ProviderPresence(Answer):
    configured = serializers.BooleanField(help_text="It has a key and is enabled.")
    models = serializers.IntegerField(help_text="How many models it listed last.")


class ProvidersPresence(Answer):
    openai = ProviderPresence()
    google = ProviderPresence()
    anthropic = ProviderPresence()


class StatusAnswer(Answer):
    status = serializers.ChoiceField(choices=["ok", "degraded"])
    version = serializers.CharField()
    profile = serializers.ChoiceField(choices=["embedded", "scaled"])
    failing = serializers.ListField(child=serializers.CharField(), help_text="Parts of the server that do not work.")
    draining = serializers.BooleanField(help_text="The server is shutting down.")
    cloud_providers = ProvidersPresence()


class StatsAnswer(Answer):
    total_nodes = serializers.IntegerField()
    online_nodes = serializers.IntegerField()
    pending_nodes = serializers.IntegerField()
    offline_nodes = serializers.IntegerField()
    error_nodes = serializers.IntegerField()
    draining_nodes = serializers.IntegerField()
    total_runtimes = serializers.IntegerField(help_text="total_nodes, by upstream's name.")
    online_runtimes = serializers.IntegerField(help_text="online_nodes, by upstream's name.")
    pending_runtimes = serializers.IntegerField(help_text="pending_nodes, by upstream's name.")
    offline_runtimes = serializers.IntegerField(help_text="offline_nodes and error_nodes, by upstream's name.")
    models = serializers.IntegerField(help_text="Different models on all nodes.")
    routable_models = serializers.IntegerField()
    excluded_models = serializers.IntegerField(help_text="Models taken out of routing, counted per node.")
    total_requests = serializers.IntegerField(help_text="Since the beginning.")
    successful_requests = serializers.IntegerField()
    failed_requests = serializers.IntegerField()
    total_active_requests = serializers.IntegerField(help_text="On nodes now.")
    queued_requests = serializers.IntegerField(help_text="Waiting for a node now.")
    average_response_time_ms = serializers.FloatField(allow_null=True)
    total_input_tokens = serializers.IntegerField()
    total_output_tokens = serializers.IntegerField()
    total_tokens = serializers.IntegerField()
    average_gpu_usage = serializers.FloatField(allow_null=True, help_text="0–100, of the nodes that report it.")
    average_gpu_memory_usage = serializers.FloatField(allow_null=True, help_text="0–100, of the nodes that report it.")
    last_request_at = serializers.DateTimeField(allow_null=True)
    last_registered_at = serializers.DateTimeField(allow_null=True)
    last_seen_at = serializers.DateTimeField(allow_null=True)


class MinuteAnswer(Answer):
    minute = serializers.DateTimeField()
    success = serializers.IntegerField()
    other = serializers.IntegerField(help_text="Refused for the client's fault, or the client hung up.")
    error = serializers.IntegerField()


class OverviewNodeAnswer(Answer):
    id = serializers.IntegerField()
    name = serializers.CharField()
    status = serializers.CharField()
    node_type = serializers.CharField()
    enabled = serializers.BooleanField()
    draining = serializers.BooleanField()
    model_count = serializers.IntegerField()
    excluded_count = serializers.IntegerField()
    in_flight = serializers.IntegerField()
    concurrency_limit = serializers.IntegerField(help_text="0 = no limit.")
    latency_ms = serializers.FloatField(allow_null=True)


class HistoryAnswer(Answer):
    history = MinuteAnswer(many=True, help_text="The last 60 minutes, oldest first.")


class OverviewAnswer(HistoryAnswer):
    stats = StatsAnswer()
    nodes = OverviewNodeAnswer(many=True)
    success_rate = serializers.FloatField(
        allow_null=True, help_text="Of the last hour, without the clients' own faults."
    )
    p50_ms = serializers.FloatField(allow_null=True, help_text="Median of the latest successful requests.")
    tokens_today = serializers.IntegerField(help_text="Of the UTC day.")
    generated_at = serializers.DateTimeField()
    generation_time_ms = serializers.FloatField()


class QueueAnswer(Answer):
    """Names of earlier llmlb versions stand beside ours."""

    waiting = serializers.IntegerField()
    processing = serializers.IntegerField()
    capacity = serializers.IntegerField(help_text="LLMLB_QUEUE_MAX.")
    timeout_secs = serializers.FloatField(help_text="LLMLB_QUEUE_TIMEOUT_SECS.")
    avg_wait_ms = serializers.FloatField(help_text="Of the last hour.")
    avg_process_ms = serializers.FloatField(help_text="Of the last hour.")
    timeouts = serializers.IntegerField()
    rejected = serializers.IntegerField()
    waiting_count = serializers.IntegerField(help_text="The same as waiting.")
    processing_count = serializers.IntegerField(help_text="The same as processing.")
    avg_wait_time_ms = serializers.FloatField(help_text="The same as avg_wait_ms.")
    avg_process_time_ms = serializers.FloatField(help_text="The same as avg_process_ms.")
    timeout_count = serializers.IntegerField(help_text="The same as timeouts.")
    rejected_count = serializers.IntegerField(help_text="The same as rejected.")


class BalancerNodeAnswer(Answer):
    id = serializers.IntegerField()
    name = serializers.CharField()
    in_flight = serializers.IntegerField()
    total_requests = serializers.IntegerField()
    successful_requests = serializers.IntegerField()
    failed_requests = serializers.IntegerField()


class BalancerAnswer(Answer):
    mode = serializers.CharField(help_text="LLMLB_LOAD_BALANCER_MODE.")
    in_flight = serializers.IntegerField()
    waiting = serializers.IntegerField()
    nodes = BalancerNodeAnswer(many=True)


class NumberUsage(Answer):
    limit = serializers.IntegerField()
    used = serializers.IntegerField(help_text="Running requests count with what is reserved for them.")


class LimitUsage(Answer):
    model = serializers.CharField(help_text="Empty: over all models together.")
    requests_per_minute = NumberUsage(required=False)
    tokens_per_minute = NumberUsage(required=False)
    concurrent_requests = NumberUsage(required=False)
    tokens_per_day = NumberUsage(required=False)
    tokens_per_month = NumberUsage(required=False)


class KeyUsageAnswer(Answer):
    tokens_today = serializers.IntegerField(help_text="Since midnight (UTC).")
    tokens_this_month = serializers.IntegerField(help_text="Since the first of the month (UTC).")
    limits = LimitUsage(many=True)
