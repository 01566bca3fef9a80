"""Figures, read-only: `/api/dashboard/…`, `/api/{queue,load-balancer}/stats`, `/api/status`, `/api/version`.

In flight and waiting are of the server process that answers.
"""

from __future__ import annotations

import time
from typing import Any, Final

from django.conf import settings
from django.http import HttpResponse
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from access.permissions import Permission
from access.rules import KNOWN, PUBLIC, ApiRules
from history.api.views import WhateverIsAccepted
from llmlb_site import __version__
from llmlb_site.dashboard import fleet, stats, traffic
from llmlb_site.dashboard.api import serializers
from llmlb_site.lib import health
from models_catalog.queries import provider_states
from nodes.models import Node
from routing import live, openapi


class Version(APIView):
    authentication_classes = ()
    rules: Final[ApiRules] = {"GET": PUBLIC}

    @extend_schema(responses=serializers.VersionAnswer)
    def get(self, request: Request) -> Response:
        """The version of this server."""
        return Response({"version": __version__})


class InferenceSchema(APIView):
    rules: Final[ApiRules] = {"GET": KNOWN}

    @extend_schema(responses=OpenApiTypes.OBJECT)
    def get(self, request: Request) -> Response:
        """The OpenAPI 3.1 document of the inference API, `/v1/*`."""
        return Response(openapi.document())


class Status(APIView):
    rules: Final[ApiRules] = {"GET": KNOWN}

    @extend_schema(responses=serializers.StatusAnswer)
    def get(self, request: Request) -> Response:
        """Whether the parts of this server work."""
        failing = [part.name for part in health.failing()]
        answer = {
            "status": "degraded" if failing else "ok",
            "version": __version__,
            "profile": "scaled" if settings.LLMLB.scaled else "embedded",
            "failing": failing,
            "draining": live.view().draining,
            "cloud_providers": {
                state.name: {"configured": state.configured, "models": len(state.models)} for state in provider_states()
            },
        }
        return Response(answer)


class CloudMetrics(APIView):
    rules: Final[ApiRules] = {"GET": Permission.METRICS_READ}
    content_negotiation_class = WhateverIsAccepted

    @extend_schema(responses={(200, "text/plain"): OpenApiTypes.STR})
    def get(self, request: Request) -> HttpResponse:
        """Requests to cloud providers, as Prometheus reads it. Of the server process that answers."""
        return HttpResponse(live.cloud_metrics(), content_type="text/plain; version=0.0.4; charset=utf-8")


class Stats(APIView):
    rules: Final[ApiRules] = {"GET": Permission.METRICS_READ}

    @extend_schema(responses=serializers.StatsAnswer)
    def get(self, request: Request) -> Response:
        """The fleet and its work in numbers."""
        return Response(serializers.StatsAnswer(_stats()).data)


class RequestHistory(APIView):
    rules: Final[ApiRules] = {"GET": Permission.METRICS_READ}

    @extend_schema(responses=serializers.HistoryAnswer)
    def get(self, request: Request) -> Response:
        """Requests by the minute, of the last hour."""
        return Response(serializers.HistoryAnswer({"history": _minutes(traffic.last_hour())}).data)


class Overview(APIView):
    rules: Final[ApiRules] = {"GET": Permission.ENDPOINTS_READ}

    @extend_schema(responses=serializers.OverviewAnswer)
    def get(self, request: Request) -> Response:
        """All that the first page of the dashboard shows."""
        started = time.monotonic()
        hour = traffic.last_hour()
        answer = {
            "stats": _stats(),
            "nodes": _nodes(),
            "history": _minutes(hour),
            "success_rate": hour.success_rate,
            "p50_ms": hour.p50_ms,
            "tokens_today": hour.tokens_today,
            "generated_at": timezone.now(),
            "generation_time_ms": round((time.monotonic() - started) * 1000, 2),
        }
        return Response(serializers.OverviewAnswer(answer).data)


class QueueStats(APIView):
    rules: Final[ApiRules] = {"GET": Permission.METRICS_READ}

    @extend_schema(responses=serializers.QueueAnswer)
    def get(self, request: Request) -> Response:
        """The queue now, and over the last hour."""
        now = live.view()
        answer = {
            "waiting": now.waiting,
            "processing": now.processing,
            "capacity": settings.LLMLB.queue_max,
            "timeout_secs": settings.LLMLB.queue_timeout,
            "avg_wait_ms": now.avg_wait_ms,
            "avg_process_ms": now.avg_process_ms,
            "timeouts": now.timeouts,
            "rejected": now.rejected,
            "waiting_count": now.waiting,
            "processing_count": now.processing,
            "avg_wait_time_ms": now.avg_wait_ms,
            "avg_process_time_ms": now.avg_process_ms,
            "timeout_count": now.timeouts,
            "rejected_count": now.rejected,
        }
        return Response(answer)


class BalancerStats(APIView):
    rules: Final[ApiRules] = {"GET": Permission.ENDPOINTS_READ}

    @extend_schema(responses=serializers.BalancerAnswer)
    def get(self, request: Request) -> Response:
        """How requests are spread over the nodes."""
        now = live.view()
        names = ("id", "name", "total_requests", "successful_requests", "failed_requests")
        answer = {
            "mode": settings.LLMLB.load_balancer_mode,
            "in_flight": sum(now.in_flight.values()),
            "waiting": now.waiting,
            "nodes": [{**row, "in_flight": now.in_flight.get(row["id"], 0)} for row in Node.objects.values(*names)],
        }
        return Response(serializers.BalancerAnswer(answer).data)


def _stats() -> dict[str, Any]:
    summary, total, gpu, last = fleet.fleet_summary(), stats.totals(), stats.gpu_averages(), stats.latest()
    return {
        "total_nodes": summary.total,
        "online_nodes": summary.online,
        "pending_nodes": summary.pending,
        "offline_nodes": summary.offline,
        "error_nodes": summary.error,
        "draining_nodes": summary.draining,
        "total_runtimes": summary.total,
        "online_runtimes": summary.online,
        "pending_runtimes": summary.pending,
        "offline_runtimes": summary.troubled,
        "models": summary.models,
        "routable_models": summary.routable_models,
        "excluded_models": summary.excluded,
        "total_requests": total.requests,
        "successful_requests": total.requests - total.failures,
        "failed_requests": total.failures,
        "total_active_requests": summary.in_flight,
        "queued_requests": summary.waiting,
        "average_response_time_ms": total.average_ms,
        "total_input_tokens": total.prompt_tokens,
        "total_output_tokens": total.completion_tokens,
        "total_tokens": total.prompt_tokens + total.completion_tokens,
        "average_gpu_usage": gpu.usage,
        "average_gpu_memory_usage": gpu.memory_usage,
        "last_request_at": last.request_at,
        "last_registered_at": last.registered_at,
        "last_seen_at": last.seen_at,
    }


def _minutes(hour: traffic.Traffic) -> list[dict[str, Any]]:
    return [
        {"minute": minute.starts, "success": minute.good, "other": minute.other, "error": minute.failed}
        for minute in hour.minutes
    ]


def _nodes() -> list[dict[str, Any]]:
    return [
        {
            "id": (node := item.node).pk,
            "name": node.name,
            "status": node.status,
            "node_type": node.node_type,
            "enabled": node.enabled,
            "draining": node.draining,
            "model_count": item.model_count,
            "excluded_count": item.excluded_count,
            "in_flight": item.in_flight,
            "concurrency_limit": node.concurrency_limit,
            "latency_ms": node.latency_ms,
        }
        for item in fleet.with_load(Node.objects.order_by("name"))
    ]
