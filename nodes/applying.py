"""What was seen of a node, written to its rows. Called inside a transaction; publishes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from django.utils import timezone

from nodes.detect import Detection
from nodes.listing import ListedModel
from nodes.models import Node, NodeModel, TypeSource
from nodes.reported import TELLING
from nodes.telling import Facts

NO_MODELS: Final = "lists no models"
TYPE_FIELDS: Final = ("node_type", "node_type_source", "node_type_reason", "node_type_detected_at", "native_apis")
FACT_FIELDS: Final = (
    "reported_concurrency",
    "version",
    "server_started_at",
    "gpu_backend",
    "gpu_count",
    "gpu_memory_total",
    "gpu_memory_used",
    "gpu_usage",
    "gpu_score",
    "cpu_usage",
    "memory_total",
    "memory_used",
    "active_requests",
    "devices",
    "loaded_models",
    "figures_at",
)


@dataclass(frozen=True, slots=True)
class ListChanges:
    """How a node's model list differs from the last good one, by model id."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.updated)


def replace_models(node: Node, listed: Iterable[ListedModel]) -> ListChanges:
    """Make a node's rows the models that it lists. Rows that stay keep their exclusion."""
    wanted = {model.id: model for model in listed}
    existing = {row.model_id: row for row in NodeModel.objects.filter(node=node)}
    added = [_new_row(node, model) for model_id, model in wanted.items() if model_id not in existing]
    removed = [row for model_id, row in existing.items() if model_id not in wanted]
    updated = [row for model_id, row in existing.items() if model_id in wanted and _update_row(row, wanted[model_id])]
    if added:
        NodeModel.objects.bulk_create(added, batch_size=500)
    if updated:
        NodeModel.objects.bulk_update(updated, ["owned_by", "context_length", "listed_at"], batch_size=500)
    for start in range(0, len(removed), 500):
        NodeModel.objects.filter(pk__in=[row.pk for row in removed[start : start + 500]]).delete()
    return ListChanges(_ids(added), _ids(removed), _ids(updated))


def apply_type(node: Node, detection: Detection) -> None:
    """Set the detected engine, unless a person has chosen one. Where nothing could be seen, the old one stays."""
    if detection.native_apis is not None:
        node.native_apis = sorted(detection.native_apis)
    if node.node_type_source == TypeSource.MANUAL:
        return
    node.node_type_detected_at = timezone.now()
    if detection.sure:
        node.node_type, node.node_type_reason = detection.node_type, detection.reason


def apply_abilities(node: Node, detection: Detection) -> bool:
    """Set what the node says that its models can do. Returns: whether that is news.

    Of a model of which it says nothing this time the earlier word stands, unless its engine is one that never tells.
    """
    changed = []
    for row in NodeModel.objects.filter(node=node):
        told = detection.abilities.get(row.model_id)
        if told is None:
            told = row.reported_capabilities if node.node_type in TELLING else {}
        if told != row.reported_capabilities:
            row.reported_capabilities = told
            changed.append(row)
    NodeModel.objects.bulk_update(changed, ["reported_capabilities"], batch_size=500)
    return bool(changed)


def apply_facts(node: Node, facts: Facts, *, whole: bool) -> None:
    """Set what the node reports of itself. `whole`: what it does not report is no longer known either."""
    values: dict[str, Any] = {
        "reported_concurrency": facts.concurrency,
        "version": facts.version,
        "server_started_at": facts.started_at,
        "gpu_backend": facts.gpu_backend,
        "gpu_count": facts.gpu_count,
        "gpu_memory_total": facts.gpu_memory_total,
        "gpu_memory_used": facts.gpu_memory_used,
        "gpu_usage": facts.gpu_usage,
        "gpu_score": facts.gpu_score,
        "cpu_usage": facts.cpu_usage,
        "memory_total": facts.memory_total,
        "memory_used": facts.memory_used,
        "active_requests": facts.active_requests,
        "figures_at": timezone.now() if facts.has_figures else None,
    }
    for name, value in values.items():
        if whole or value not in (None, ""):
            setattr(node, name, value)
    if whole or facts.devices is not None:
        node.devices = list(facts.devices or ())
    if whole or facts.loaded_models is not None:
        node.loaded_models = list(facts.loaded_models or ())


def apply_refused(node: Node, detection: Detection) -> None:
    """Set which of its models it does not execute, unless it did not tell this time."""
    if detection.refused is not None:
        node.refused_models = detection.refused


def _new_row(node: Node, model: ListedModel) -> NodeModel:
    return NodeModel(node=node, model_id=model.id, owned_by=model.owned_by, context_length=model.context_length)


def _update_row(row: NodeModel, model: ListedModel) -> bool:
    if (row.owned_by, row.context_length) == (model.owned_by, model.context_length):
        return False
    row.owned_by, row.context_length, row.listed_at = model.owned_by, model.context_length, timezone.now()
    return True


def _ids(rows: Iterable[NodeModel]) -> tuple[str, ...]:
    return tuple(row.model_id for row in rows)
