"""Rows of the database → the frozen tables that requests are served from. Runs in a thread of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from django.conf import settings
from django.utils import timezone

from access.models import KeyLimit
from access.queries import live_principals
from llmlb_site.lib.models import Revision
from models_catalog.capabilities import Abilities, abilities_of, capabilities_of
from models_catalog.models import CatalogModel, ModelAlias
from models_catalog.queries import ProviderState, known_of, provider_states
from nodes.models import Node, NodeModel, NodeStatus
from routing.core.limits import KeyLimits, Limit
from routing.core.table import Inability, ModelInfo, NodeEntry, Pair, Principal, RoutingTable

# What a node said of its use longer ago than this says nothing of now (SPEC-6cd7f960).
FIGURES_HOLD: Final = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Revisions:
    """How often what a table is made from has changed."""

    fleet: int
    keys: int


def read_revisions() -> Revisions:
    numbers = dict(Revision.objects.values_list("topic", "number"))
    fleet = sum(numbers.get(topic, 0) for topic in ("nodes", "models", "exclusions"))
    return Revisions(fleet=fleet, keys=numbers.get("keys", 0))


def read_principals() -> dict[str, Principal]:
    """Every key that may call now, by public id."""
    return {
        row.public_id: Principal(
            key_id=row.key_id,
            name=row.name,
            digest=row.digest,
            permissions=frozenset(permission.value for permission in row.permissions),
            allowed_models=frozenset(row.allowed_models),
            expires_at=row.expires_at.timestamp() if row.expires_at is not None else None,
            owner_id=row.owner_id,
            limits=KeyLimits.of(map(limit_of, row.limits)),
        )
        for row in live_principals()
        if row.enabled and row.owner_active and not row.revoked
    }


def limit_of(row: KeyLimit) -> Limit:
    return Limit(
        row.key_id,
        row.model,
        requests=row.requests_per_minute or 0,
        tokens=row.tokens_per_minute or 0,
        concurrent=row.concurrent_requests or 0,
        day=row.tokens_per_day or 0,
        month=row.tokens_per_month or 0,
    )


def read_table() -> RoutingTable:
    """The whole fleet as it stands in the database."""
    fleet = _Fleet()
    catalogue = dict(CatalogModel.objects.values_list("model_id", "capabilities"))
    for row in NodeModel.objects.order_by("node_id", "model_id").iterator(5000):
        fleet.add(row, known_of(row, catalogue.get(row.model_id, ())))
    providers = [state for state in provider_states() if state.configured]
    listed = dict(_listed(providers))
    table = RoutingTable.build(
        (node_entry(node) for node in Node.objects.all()),
        fleet.executable,
        fleet.excluded,
        catalogue=catalogue,
        aliases=dict(ModelAlias.objects.values_list("alias", "model_id")),
        capabilities={
            **{name: frozenset(capabilities_of(name.partition(":")[2])) for name in listed},
            **fleet.all_capabilities(catalogue),
        },
        inability=fleet.inability(),
        models=fleet.models,
    )
    return table.with_providers(map(provider_entry, providers), listed)


def node_entry(node: Node) -> NodeEntry:
    return NodeEntry(
        id=node.pk,
        name=node.name,
        base_url=node.base_url,
        api_key=node.api_key,
        limit=node.concurrency_limit,
        weight=node.weight,
        latency=node.latency_ms / 1000 if node.latency_ms is not None else None,
        timeout=node.effective_inference_timeout,
        online=node.status == NodeStatus.ONLINE,
        draining=node.draining,
        enabled=node.enabled,
        node_type=node.node_type,
        speaks=frozenset(node.native_apis),
        gpu_score=node.gpu_score or 0,
        **_fresh_figures(node),
    )


def _fresh_figures(node: Node) -> dict[str, float]:
    """Use of GPU and its memory in percent, as long as the node has told it lately."""
    if node.figures_at is None or timezone.now() - node.figures_at > FIGURES_HOLD:
        return {}
    total = node.gpu_memory_total
    return {
        "gpu_usage": node.gpu_usage or 0.0,
        "gpu_memory": 100 * (node.gpu_memory_used or 0) / total if total else 0.0,
    }


def provider_entry(state: ProviderState) -> NodeEntry:
    """A cloud provider, in the form in which an API plans a request to it. It is no node: its id is 0."""
    return NodeEntry(
        id=0,
        name=state.name,
        base_url=state.base_url,
        api_key=state.api_key,
        timeout=float(settings.LLMLB.inference_timeout),
        node_type=state.name,
    )


def _listed(providers: list[ProviderState]) -> Iterator[tuple[str, ModelInfo]]:
    for state in providers:
        for model in state.models:
            info = ModelInfo(state.name, model.get("context_length"), model.get("created", 0))
            yield f"{state.name}:{model['id']}", info


class _Fleet:
    """Gathers the models of all nodes."""

    def __init__(self) -> None:
        self.executable: list[Pair] = []
        self.excluded: list[Pair] = []
        self.models: dict[str, ModelInfo] = {}
        self._can: dict[str, frozenset[str]] = {}
        self._cannot: dict[str, dict[frozenset[str], list[int]]] = {}

    def add(self, row: NodeModel, known: Abilities) -> None:
        pair = (row.node_id, row.model_id)
        self.executable.append(pair)
        if row.is_excluded:
            self.excluded.append(pair)
        self._can[row.model_id] = self._can.get(row.model_id, known.can) | known.can
        if known.cannot:
            self._cannot.setdefault(row.model_id, {}).setdefault(known.cannot, []).append(row.node_id)
        before = self.models.get(row.model_id)
        created = int(row.listed_at.timestamp())
        self.models[row.model_id] = ModelInfo(
            owned_by=(before.owned_by if before else "") or row.owned_by,
            # What every holder can take: the smallest is the safe promise.
            context_length=_smaller(before.context_length if before else None, row.context_length),
            created=min(created, before.created) if before else created,
        )

    def all_capabilities(self, catalogue: Mapping[str, list[str]]) -> dict[str, frozenset[str]]:
        """What each model can do on some node, or could, of those that are only registered."""
        registered = {model: abilities_of(model, catalogue=entered).can for model, entered in catalogue.items()}
        return {**registered, **self._can}

    def inability(self) -> dict[str, Inability]:
        """What each model certainly cannot do, and where."""
        return {
            model: tuple((cannot, frozenset(nodes)) for cannot, nodes in groups.items())
            for model, groups in self._cannot.items()
        }


def _smaller(one: int | None, other: int | None) -> int | None:
    return min(one, other) if one and other else one or other
