"""The fleet as the pages show it: nodes with their load and models, what is excluded, how much of it is up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from django.db.models import Case, Count, IntegerField, Q, QuerySet, Value, When

from nodes.models import Node, NodeModel, NodeStatus
from routing import live

ROUTABLE: Final = Q(status=NodeStatus.ONLINE, enabled=True, draining=False)
TILES: Final = 48
TAGS: Final = 3


@dataclass(frozen=True, slots=True)
class FleetNode:
    """One node with what is on it now."""

    node: Node
    model_count: int
    excluded_count: int
    in_flight: int
    models: tuple[NodeModel, ...] = ()

    @property
    def more_models(self) -> int:
        return self.model_count - len(self.models)


@dataclass(frozen=True, slots=True)
class FleetSummary:
    """The state of the fleet in numbers."""

    total: int
    online: int
    pending: int
    offline: int
    error: int
    draining: int
    disabled: int
    routable: int
    models: int
    routable_models: int
    excluded: int
    in_flight: int
    waiting: int

    @property
    def troubled(self) -> int:
        return self.offline + self.error

    @property
    def health(self) -> str:
        """`good`, `warn` or `bad`, for the colour of the first card; empty without nodes."""
        if not self.total:
            return ""
        if not self.routable:
            return "bad"
        return "warn" if self.troubled or self.excluded else "good"


def fleet_summary() -> FleetSummary:
    now = live.view()
    nodes = Node.objects.aggregate(
        total=Count("id"),
        routable=Count("id", filter=ROUTABLE),
        draining=Count("id", filter=Q(draining=True)),
        disabled=Count("id", filter=Q(enabled=False)),
        **{status: Count("id", filter=Q(status=status)) for status in NodeStatus.values},
    )
    at_routable = Q(node__status=NodeStatus.ONLINE, node__enabled=True, node__draining=False)
    models = NodeModel.objects.aggregate(
        models=Count("model_id", distinct=True),
        routable_models=Count("model_id", distinct=True, filter=at_routable & Q(excluded_at=None)),
        excluded=Count("id", filter=Q(excluded_at__isnull=False)),
    )
    return FleetSummary(**nodes, **models, in_flight=sum(now.in_flight.values()), waiting=now.waiting)


def tiles() -> list[FleetNode]:
    """The nodes of the overview: those in trouble first, then by name."""
    trouble = Case(
        When(status=NodeStatus.ERROR, then=Value(0)),
        When(status=NodeStatus.OFFLINE, enabled=True, then=Value(1)),
        When(status=NodeStatus.PENDING, then=Value(2)),
        default=Value(3),
        output_field=IntegerField(),
    )
    return with_load(Node.objects.annotate(trouble=trouble).order_by("trouble", "name")[:TILES])


def find_nodes(*, search: str = "", status: str = "", node_type: str = "", excluded: bool = False) -> QuerySet[Node]:
    """The nodes of the list. `status` is a node's status, or `draining`, or `disabled`."""
    found = Node.objects.order_by("name")
    if search:
        found = found.filter(
            Q(name__icontains=search)
            | Q(base_url__icontains=search)
            | Q(notes__icontains=search)
            | Q(id__in=NodeModel.objects.filter(model_id__icontains=search).values("node_id"))
        )
    if status == "draining":
        found = found.filter(draining=True)
    elif status == "disabled":
        found = found.filter(enabled=False)
    elif status:
        found = found.filter(status=status)
    if node_type:
        found = found.filter(node_type=node_type)
    if excluded:
        found = found.filter(id__in=NodeModel.objects.filter(excluded_at__isnull=False).values("node_id"))
    return found


def with_load(nodes: Iterable[Node]) -> list[FleetNode]:
    """These nodes with their models (a few of each, excluded ones first) and what is in flight."""
    rows = list(nodes)
    in_flight = live.view().in_flight
    models: dict[int, list[NodeModel]] = {node.pk: [] for node in rows}
    for model in NodeModel.objects.filter(node__in=rows).order_by("model_id"):
        models[model.node_id].append(model)
    return [_with_load(node, models[node.pk], in_flight.get(node.pk, 0)) for node in rows]


def _with_load(node: Node, models: list[NodeModel], in_flight: int) -> FleetNode:
    excluded = [model for model in models if model.is_excluded]
    shown = (excluded + [model for model in models if not model.is_excluded])[:TAGS]
    return FleetNode(node, len(models), len(excluded), in_flight, tuple(shown))


def excluded_models(limit: int = 20) -> QuerySet[NodeModel]:
    """What was taken out of routing and is not back yet, latest first."""
    return NodeModel.objects.filter(excluded_at__isnull=False).select_related("node").order_by("-excluded_at")[:limit]
