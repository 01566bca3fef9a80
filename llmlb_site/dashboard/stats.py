"""Figures of the management API: the fleet, every request since the beginning, and what is going on now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.db.models import Avg, F, Max, Sum

from history.models import RequestRecord, TokenTotal
from llmlb_site.lib.reuse import reused_by_cost
from nodes.models import Node, NodeStatus


@dataclass(frozen=True, slots=True)
class Totals:
    """Since the beginning, from the daily totals: they outlive rows, nodes and keys."""

    requests: int
    failures: int
    prompt_tokens: int
    completion_tokens: int
    average_ms: float | None


@dataclass(frozen=True, slots=True)
class GpuAverages:
    """Over the online nodes that report it, 0–100; None where none does."""

    usage: float | None
    memory_usage: float | None


@dataclass(frozen=True, slots=True)
class Latest:
    """When something last happened; None: never."""

    request_at: datetime | None
    registered_at: datetime | None
    seen_at: datetime | None


@reused_by_cost()
def totals() -> Totals:
    names = ("requests", "failures", "prompt_tokens", "completion_tokens", "duration_ms")
    found = TokenTotal.objects.aggregate(**{name: Sum(name) for name in names})
    requests = found["requests"] or 0
    return Totals(
        requests=requests,
        failures=found["failures"] or 0,
        prompt_tokens=found["prompt_tokens"] or 0,
        completion_tokens=found["completion_tokens"] or 0,
        average_ms=(found["duration_ms"] or 0.0) / requests if requests else None,
    )


def gpu_averages() -> GpuAverages:
    online = Node.objects.filter(status=NodeStatus.ONLINE)
    memory = online.filter(gpu_memory_total__gt=0).aggregate(
        share=Avg(F("gpu_memory_used") * 100.0 / F("gpu_memory_total"))
    )
    return GpuAverages(online.aggregate(usage=Avg("gpu_usage"))["usage"], memory["share"])


def latest() -> Latest:
    nodes = Node.objects.aggregate(registered=Max("registered_at"), seen=Max("last_seen"))
    request = RequestRecord.objects.order_by("-id").values_list("started_at", flat=True).first()
    return Latest(request, nodes["registered"], nodes["seen"])
