"""What a check of a node changes: its status, its list, its exclusions, its history; and who is told."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from llmlb_site.lib.events import publish
from nodes.applying import (
    FACT_FIELDS,
    NO_MODELS,
    TYPE_FIELDS,
    ListChanges,
    apply_abilities,
    apply_facts,
    apply_refused,
    apply_type,
    replace_models,
)
from nodes.checking import Check
from nodes.detect import Detection
from nodes.exclusions import lift_exclusions
from nodes.models import Node, NodeModel, NodeStatus, PollResult, TypeSource
from nodes.telling import MAX_MODELS

log = logging.getLogger("llmlb.nodes")

LATENCY_WEIGHT: Final = 0.2
REPEAT_SECONDS: Final = 0.3
# A result that says the same as the one before is kept once in this long: 5 s intervals would be millions of rows.
SAME_AGAIN_SECONDS: Final = 60
CHECK_FIELDS: Final = (
    "status",
    "consecutive_failures",
    "error_count",
    "last_error",
    "last_seen",
    "latency_ms",
    "connect_failed",
    *FACT_FIELDS,
)
# What routing or a page shows as state. Latency and load alone are no news.
STATE_FIELDS: Final = (
    "status",
    "node_type",
    "reported_concurrency",
    "version",
    "gpu_backend",
    "last_error",
    "native_apis",
    "loaded_models",
    "refused_models",
)


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a check has changed. `came_up`: it was not reachable before, or has restarted."""

    node: Node
    before: str
    changes: ListChanges
    came_up: bool
    refused_count: int | None = None

    @property
    def wants_detection(self) -> bool:
        never = self.node.node_type_source == TypeSource.AUTO and self.node.node_type_detected_at is None
        refused_others = self.refused_count not in (None, len(self.node.refused_models))
        return self.came_up or never or refused_others or bool(self.changes.added or self.changes.removed)


def record_check(node_id: int, check: Check) -> Recorded | None:
    """Write how a check went and tell the others what has changed.

    Returns:
        None where it no longer matters: the node is gone, or a later check has succeeded in the meantime.
    """
    with transaction.atomic():
        node = Node.objects.select_for_update().filter(pk=node_id).first()
        if node is None or _is_overtaken(node, check):
            return None
        before, state = node.status, _state(node)
        recorded = _succeed(node, check) if check.listing else _fail(node, check)
        node.save(update_fields=[*CHECK_FIELDS, *(["next_poll_at"] if _must_repeat(node, check) else [])])
        _keep_result(node, check, before)
        if _state(node) != state:
            publish("nodes", {"node": node_id})
        if recorded.changes:
            publish("models", {"node": node_id})
    _log(recorded)
    return recorded


def record_detection(node_id: int, detection: Detection) -> None:
    """Write which engine a node runs, seen anew."""
    with transaction.atomic():
        node = Node.objects.select_for_update().filter(pk=node_id).first()
        if node is None:
            return
        state = _state(node)
        apply_type(node, detection)
        apply_facts(node, detection.facts, whole=detection.sure)
        apply_refused(node, detection)
        node.save(update_fields=[*TYPE_FIELDS, *FACT_FIELDS, "refused_models"])
        if _state(node) != state:
            publish("nodes", {"node": node_id})
        if apply_abilities(node, detection):
            publish("models", {"node": node_id})


def _is_overtaken(node: Node, check: Check) -> bool:
    # Not by one in the future: then the clock was set back in between.
    return not check.ok and node.last_seen is not None and check.started <= node.last_seen <= timezone.now()


def _succeed(node: Node, check: Check) -> Recorded:
    assert check.listing is not None
    before = node.status
    restarted = node.connect_failed or _has_new_start(node, check)
    came_up = restarted or before != NodeStatus.ONLINE
    node.status = NodeStatus.ONLINE
    node.consecutive_failures = 0
    node.connect_failed = False
    node.last_seen = check.finished
    node.last_error = "" if check.listing.models else NO_MODELS
    node.latency_ms = _smoothed(node.latency_ms, check.listing.reply.latency_ms)
    if check.facts is not None:
        apply_facts(node, check.facts, whole=False)
    changes = replace_models(node, check.listing.models)
    if came_up:
        lift_exclusions(NodeModel.objects.filter(node=node), reason="the node came back")
    return Recorded(node, before, changes, came_up, _refused_count(check))


def _refused_count(check: Check) -> int | None:
    """How many reasons there would be to show; None where the node does not tell."""
    count = check.facts.refused_count if check.facts else None
    return None if count is None else min(count, MAX_MODELS)


def _has_new_start(node: Node, check: Check) -> bool:
    reported = check.facts.started_at if check.facts else ""
    return bool(reported and node.server_started_at) and reported != node.server_started_at


def _fail(node: Node, check: Check) -> Recorded:
    before = node.status
    node.consecutive_failures += check.failures
    node.error_count += 1
    node.last_error = check.error[:300]
    node.connect_failed = node.connect_failed or check.connect_failed
    if before == NodeStatus.PENDING or node.consecutive_failures >= settings.LLMLB.offline_after:
        node.status = NodeStatus.OFFLINE
        node.latency_ms = None
    if _must_repeat(node, check):
        node.next_poll_at = timezone.now() + timedelta(seconds=REPEAT_SECONDS)
    return Recorded(node, before, ListChanges(), came_up=False)


def _must_repeat(node: Node, check: Check) -> bool:
    """A failure that does not yet make it offline is looked at again at once, not after an interval."""
    return not check.ok and node.status == NodeStatus.ONLINE


def _smoothed(average: float | None, latest: float) -> float:
    return latest if average is None else average + LATENCY_WEIGHT * (latest - average)


def _state(node: Node) -> tuple[object, ...]:
    return tuple(getattr(node, name) for name in STATE_FIELDS)


def _keep_result(node: Node, check: Check, before: str) -> None:
    expected = before == (NodeStatus.ONLINE if check.ok else NodeStatus.OFFLINE) and node.status == before
    if expected and _kept_lately(node):
        return
    listing = check.listing
    PollResult.objects.create(
        node=node,
        at=check.finished,
        ok=check.ok,
        latency_ms=listing.reply.latency_ms if listing else None,
        model_count=len(listing.models) if listing else None,
        error=check.error[:300],
        status_before=before,
        status_after=node.status,
    )


def _kept_lately(node: Node) -> bool:
    latest = PollResult.objects.filter(node=node).values_list("at", flat=True).first()
    return latest is not None and abs(timezone.now() - latest) < timedelta(seconds=SAME_AGAIN_SECONDS)


def _log(recorded: Recorded) -> None:
    node, changes = recorded.node, recorded.changes
    if node.status != recorded.before:
        level = logging.INFO if node.status == NodeStatus.ONLINE else logging.WARNING
        log.log(level, "node=%s is %s, was %s %s", node.name, node.status, recorded.before, node.last_error)
    if changes:
        log.info("node=%s models added=%d removed=%d", node.name, len(changes.added), len(changes.removed))
