"""A small fleet in the database, for tests of the pages. Nothing listens behind it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.utils import timezone

from history.choices import Outcome
from history.models import RequestRecord
from nodes.models import Node, NodeModel, NodeStatus


def make_node(name: str, *models: str, excluded: tuple[str, ...] = (), **fields: Any) -> Node:
    fields.setdefault("status", NodeStatus.ONLINE)
    fields.setdefault("base_url", f"http://10.9.8.7:{8000 + Node.objects.count()}")
    node = Node.objects.create(name=name, **fields)
    for model in (*models, *excluded):
        out = model in excluded
        NodeModel.objects.create(
            node=node,
            model_id=model,
            excluded_at=timezone.now() if out else None,
            excluded_reason="it answered 500" if out else "",
        )
    return node


def make_request(outcome: Outcome = Outcome.SUCCESS, *, minutes_ago: float = 1, **fields: Any) -> RequestRecord:
    status = {Outcome.SUCCESS: 200, Outcome.CLIENT_ERROR: 400, Outcome.CANCELLED: 499}.get(outcome, 502)
    values = {
        "request_id": "req",
        "started_at": timezone.now() - timedelta(minutes=minutes_ago),
        "kind": "chat",
        "model": "model-a",
        "outcome": outcome,
        "status": status,
        "duration_ms": 100.0,
    }
    return RequestRecord.objects.create(**{**values, **fields})
