"""Reading nodes and what they can execute."""

from __future__ import annotations

from django.db.models import Count, OuterRef, Prefetch, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce

from nodes.models import Download, Node, NodeModel, NodeStatus
from nodes.refusals import UnknownNode


def get_nodes_for_model(model_id: str) -> list[Node]:
    """The nodes that a request for this model may go to: enabled, online, not draining, with the model executable and
    not excluded there. The id matches exactly, in upper and lower case too.
    """
    holders = NodeModel.objects.filter(model_id=model_id, excluded_at=None).values("node_id")
    found = Node.objects.filter(enabled=True, draining=False, status=NodeStatus.ONLINE, pk__in=holders)
    return list(found.order_by("pk"))


def get_node(node_id: int) -> Node:
    """Raises: UnknownNode."""
    node = Node.objects.filter(pk=node_id).first()
    if node is None:
        raise UnknownNode
    return node


def nodes_with_counts() -> QuerySet[Node]:
    """Nodes with `model_count` and `excluded_count`."""
    return Node.objects.annotate(model_count=_count_of(Q()), excluded_count=_count_of(Q(excluded_at__isnull=False)))


def nodes_with_models() -> QuerySet[Node]:
    """Nodes with their models, in two queries for all of them."""
    return Node.objects.prefetch_related(Prefetch("models", NodeModel.objects.order_by("model_id")))


def downloads_of(node_id: int, *, limit: int = 50) -> list[Download]:
    """The latest downloads of a node, newest first. Raises: UnknownNode."""
    return list(get_node(node_id).downloads.order_by("-id")[:limit])


def _count_of(which: Q) -> Coalesce:
    rows = NodeModel.objects.filter(which, node=OuterRef("pk")).order_by().values("node")
    return Coalesce(Subquery(rows.annotate(total=Count("pk")).values("total")), 0)


def nodes_with_tag(tag: str) -> list[int]:
    """Ids of the nodes with this tag. Told in Python: SQLite cannot look into a JSON list."""
    return [pk for pk, tags in Node.objects.values_list("pk", "tags") if tag in tags]
