"""Recovery probes: a one-token inference, by the worker, of a model that is excluded on a node that is online."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from nodes.background import background
from nodes.client import CallFailed, Reply, Target, call
from nodes.exclusions import lift_exclusions
from nodes.models import NodeModel, NodeStatus

log = logging.getLogger("llmlb.nodes")

# How much longer than the probe may take its claim lasts, so that no second one starts beside it.
LEASE_SLACK_SECONDS: Final = 10


@dataclass(frozen=True, slots=True)
class Probe:
    """One probe of one exclusion. `excluded_at` tells it from a later exclusion of the same model."""

    pk: int
    node_name: str
    target: Target
    model_id: str
    kind: str
    excluded_at: datetime
    timeout: float


def probe_excluded() -> int:
    """Start the recovery probes that are due, at most one a node, and return at once. Returns: how many."""
    probes = claim_due_probes(timezone.now())
    for probe in probes:
        background().submit(_probe, probe)
    return len(probes)


def claim_due_probes(now: datetime) -> list[Probe]:
    """The probes that are due and that no other worker has taken."""
    if settings.LLMLB.exclusion_probe_max <= 0:
        return []
    due = NodeModel.objects.filter(
        excluded_at__isnull=False, next_probe_at__lte=now, node__enabled=True, node__status=NodeStatus.ONLINE
    )
    first_of_node = {row.node_id: row for row in due.select_related("node").order_by("-next_probe_at")}
    return [_as_probe(row) for row in first_of_node.values() if _claim(row, now)]


def _claim(row: NodeModel, now: datetime) -> bool:
    lease = row.node.effective_inference_timeout + LEASE_SLACK_SECONDS
    mine = NodeModel.objects.filter(pk=row.pk, next_probe_at=row.next_probe_at)
    return mine.update(next_probe_at=now + timedelta(seconds=lease)) == 1


def _as_probe(row: NodeModel) -> Probe:
    node = row.node
    assert row.excluded_at is not None
    return Probe(
        pk=row.pk,
        node_name=node.name,
        target=Target(node.base_url, node.api_key),
        model_id=row.model_id,
        kind=row.excluded_kind,
        excluded_at=row.excluded_at,
        timeout=node.effective_inference_timeout,
    )


async def _probe(probe: Probe) -> None:
    path, body = request_for(probe.kind, probe.model_id)
    try:
        reply = await call(probe.target, path, timeout=probe.timeout, body=body)
        failure = "" if is_promised(probe.kind, reply) else f"answered {reply.status} without a result"
    except CallFailed as error:
        failure = str(error)
    await background().write(record_probe, probe, failure)


def request_for(kind: str, model_id: str) -> tuple[str, dict[str, Any]]:
    """Path and body of the smallest request of that kind."""
    if kind == "embedding":
        return "/v1/embeddings", {"model": model_id, "input": "hi"}
    if kind == "completion":
        return "/v1/completions", {"model": model_id, "prompt": "hi", "max_tokens": 1}
    message = {"role": "user", "content": "hi"}
    return "/v1/chat/completions", {"model": model_id, "messages": [message], "max_tokens": 1}


def is_promised(kind: str, reply: Reply) -> bool:
    """Whether the answer is what the API promises."""
    document = reply.document
    results = document.get("data" if kind == "embedding" else "choices") if isinstance(document, dict) else None
    return isinstance(results, list) and bool(results)


def record_probe(probe: Probe, failure: str) -> None:
    """Put the model back in, or set when to try again: after 1, 2, 4 … LLMLB_EXCLUSION_PROBE_SECS seconds."""
    same = NodeModel.objects.filter(pk=probe.pk, excluded_at=probe.excluded_at)
    if not failure:
        lift_exclusions(same, reason="a recovery probe succeeded")
        return
    with transaction.atomic():
        row = same.select_for_update().first()
        if row is None:
            return
        row.probe_failures += 1
        row.next_probe_at = timezone.now() + timedelta(seconds=next_delay(row.probe_failures))
        row.save(update_fields=["probe_failures", "next_probe_at"])
    log.info("recovery probe failed: node=%s model=%s reason=%s", probe.node_name, probe.model_id, failure)


def next_delay(failures: int) -> float:
    """Seconds until the next probe after so many failed ones."""
    return float(min(2 ** min(failures - 1, 20), settings.LLMLB.exclusion_probe_max))
