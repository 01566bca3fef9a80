"""Models taken out of routing on one node, and put back in (contract: executable, excluded)."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Final

from django.conf import settings
from django.db import transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from access import audit
from access.audit import SYSTEM, Actor
from llmlb_site.lib.events import publish, settle
from nodes.models import Node, NodeModel
from nodes.refusals import UnknownModel, UnknownNode
from nodes.soon import enqueue

log = logging.getLogger("llmlb.nodes")

# Kinds of request that a small one can try again, or a chat of one token. Images are too much to make for a question:
# they come back with the node or by an operator.
PROBEABLE: Final = frozenset(
    {
        "chat",
        "completion",
        "embedding",
        "responses",
        "messages",
        "count_tokens",
        "rerank",
        "speech",
        "transcription",
        "translation",
    }
)
REASON_LENGTH: Final = 200


def exclude_model_from_node(
    *, node_id: int, model_id: str, reason: str, kind: str = "chat", on_connect: bool = False
) -> bool:
    """Take a model out of routing on one node, after a failure that is the node's fault.

    Requests in flight go on. The first recovery probe is due at once. Doing it again only counts the failure.

    Args:
        kind: the kind of request that failed; its recovery probe is of the same kind.
        on_connect: the node could not be connected to: a check that gets through then shows a restart, and lifts
            every exclusion of the node.

    Returns:
        Whether the model was in routing there until now.
    """
    now = timezone.now()
    probed = kind in PROBEABLE and settings.LLMLB.exclusion_probe_max > 0
    with transaction.atomic():
        rows = NodeModel.objects.filter(node_id=node_id, model_id=model_id)
        if not rows.update(failure_count=F("failure_count") + 1):
            return False
        if on_connect:
            Node.objects.filter(pk=node_id).update(connect_failed=True)
        excluded = rows.filter(excluded_at=None).update(
            excluded_at=now,
            excluded_reason=reason[:REASON_LENGTH],
            excluded_kind=kind[:32],
            next_probe_at=now if probed else None,
            probe_failures=0,
        )
        if excluded:
            _tell_excluded(node_id, model_id, reason[:REASON_LENGTH])
    if excluded and probed:
        enqueue("nodes.probe_excluded")
    return bool(excluded)


def _tell_excluded(node_id: int, model_id: str, reason: str) -> None:
    name = _name_of(node_id)
    log.warning("model excluded: node=%s model=%s reason=%s", name, model_id, reason)
    audit.record("model.exclude", actor=SYSTEM, target=name, details={"model": model_id, "reason": reason})
    publish("exclusions", {"node": node_id})


def take_back_exclusions(*, pairs: Collection[tuple[int, str]], reason: str = "the request was at fault") -> int:
    """Put models back in that one request took out on several nodes: it was the request's fault, not theirs.

    Args:
        pairs: node id and model id.

    Returns:
        How many were excluded until now.
    """
    return sum(
        _include(NodeModel.objects.filter(node_id=node_id, model_id=model_id), actor=SYSTEM, reason=reason)
        for node_id, model_id in pairs
    )


def reinclude_model(*, node_id: int, model_id: str | None, actor: Actor) -> int:
    """Put a model of a node back into routing, or all of them (`model_id` None). Returns: how many were excluded.

    Raises:
        UnknownNode, UnknownModel
    """
    settle()  # a model that has just failed is to be put back in, too
    rows = NodeModel.objects.filter(node_id=node_id)
    if not Node.objects.filter(pk=node_id).exists():
        raise UnknownNode
    if model_id is not None:
        rows = rows.filter(model_id=model_id)
        if not rows.exists():
            raise UnknownModel
    return _include(rows, actor=actor, reason="by hand")


def lift_exclusions(rows: QuerySet[NodeModel], *, reason: str) -> int:
    """Put back in whatever of `rows` is excluded, because of what was seen of the node. Returns: how many."""
    return _include(rows, actor=SYSTEM, reason=reason)


def _include(rows: QuerySet[NodeModel], *, actor: Actor, reason: str) -> int:
    with transaction.atomic():
        excluded = list(rows.filter(excluded_at__isnull=False).values_list("pk", "node_id", "model_id"))
        if not excluded:
            return 0
        count = NodeModel.objects.filter(pk__in=[pk for pk, _node, _model in excluded]).update(
            excluded_at=None,
            excluded_reason="",
            excluded_kind="",
            next_probe_at=None,
            probe_failures=0,
        )
        for node_id in {node_id for _pk, node_id, _model in excluded}:
            models = [model for _pk, owner, model in excluded if owner == node_id]
            _tell_included(node_id, models, actor, reason)
    return count


def _tell_included(node_id: int, models: list[str], actor: Actor, reason: str) -> None:
    name = _name_of(node_id)
    log.info("models back in routing: node=%s models=%s reason=%s", name, ",".join(models), reason)
    audit.record("model.reinclude", actor=actor, target=name, details={"models": models, "reason": reason})
    publish("exclusions", {"node": node_id})


def _name_of(node_id: int) -> str:
    return Node.objects.values_list("name", flat=True).get(pk=node_id)
