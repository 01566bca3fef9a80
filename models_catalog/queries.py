"""Reading the catalogue, and every model over the fleet as one list."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from django.conf import settings
from django_stubs_ext import StrPromise

from llmlb_site.lib.config import CloudAccess
from llmlb_site.lib.node_addresses import BadBaseUrl
from models_catalog.capabilities import Abilities, abilities_of
from models_catalog.models import CatalogModel, CloudProvider, ModelAlias, ProviderName
from models_catalog.providers import PROVIDERS, Listed, normalise_provider_url
from nodes.capability_labels import LABELS
from nodes.models import NodeModel


@dataclass(frozen=True, slots=True)
class Holding:
    """One model on one node, as the fleet list shows it."""

    node_model: NodeModel
    routable: bool


@dataclass(slots=True)
class FleetModel:
    """One model id: where it can be executed, where it is excluded, what else it is called."""

    model_id: str
    holders: list[Holding] = field(default_factory=list)
    aliases: list[ModelAlias] = field(default_factory=list)
    catalogue: CatalogModel | None = None

    @property
    def excluded(self) -> list[Holding]:
        return [holding for holding in self.holders if holding.node_model.is_excluded]

    @property
    def executable(self) -> list[Holding]:
        return [holding for holding in self.holders if not holding.node_model.is_excluded]

    @property
    def routable(self) -> list[Holding]:
        return [holding for holding in self.executable if holding.routable]

    @property
    def capabilities(self) -> Sequence[str]:
        return declared_capabilities(self.model_id, self.catalogue, [holding.node_model for holding in self.holders])

    @property
    def capability_labels(self) -> list[StrPromise | str]:
        return [LABELS.get(capability, capability) for capability in self.capabilities]


def declared_capabilities(
    model_id: str, catalogue: CatalogModel | None, node_models: Iterable[NodeModel]
) -> Sequence[str]:
    """What the model can do on any of these nodes, as far as it is known. Sorted."""
    entered = catalogue.capabilities if catalogue else []
    known = [known_of(row, entered) for row in node_models] or [abilities_of(model_id, catalogue=entered)]
    return sorted(frozenset[str]().union(*(abilities.can for abilities in known)))


def known_of(row: NodeModel, entered: Collection[str] = ()) -> Abilities:
    """What is known of a model on a node. `entered`: what the catalogue says of it."""
    return abilities_of(row.model_id, here=row.capabilities, catalogue=entered, reported=row.reported_capabilities)


def fleet_models(search: str = "") -> list[FleetModel]:
    """Every model that a node lists, that is registered, or that an alias points to, by id."""
    found: dict[str, FleetModel] = {}

    def entry(model_id: str) -> FleetModel:
        return found.setdefault(model_id, FleetModel(model_id))

    for node_model in NodeModel.objects.select_related("node").order_by("node__name"):
        entry(node_model.model_id).holders.append(Holding(node_model, node_model.node.is_routable))
    for registered in CatalogModel.objects.all():
        entry(registered.model_id).catalogue = registered
    for alias in ModelAlias.objects.all():
        entry(alias.model_id).aliases.append(alias)
    wanted = search.strip().lower()
    return sorted((model for model in found.values() if _mentions(model, wanted)), key=lambda m: m.model_id.lower())


def _mentions(model: FleetModel, wanted: str) -> bool:
    return wanted in model.model_id.lower() or any(wanted in alias.alias.lower() for alias in model.aliases)


@dataclass(frozen=True, slots=True)
class ProviderState:
    """One cloud provider as it stands: what a person set wins over the environment."""

    name: str
    enabled: bool
    api_key: str = field(repr=False)
    base_url: str
    source: Literal["database", "environment", ""]
    models: Sequence[Listed] = ()
    models_at: datetime | None = None
    last_checked: datetime | None = None
    last_error: str = ""

    @property
    def label(self) -> str:
        return ProviderName(self.name).label

    @property
    def configured(self) -> bool:
        """Requests for its models are forwarded to it."""
        return self.enabled and bool(self.api_key)


def provider_states() -> list[ProviderState]:
    """Every provider, configured or not, in the order of their names' list."""
    rows = {row.name: row for row in CloudProvider.objects.all()}
    return [provider_state(name, rows.get(name)) for name in ProviderName.values]


def provider_state(name: str, row: CloudProvider | None) -> ProviderState:
    """A key that a person entered never goes to another address than the one that stands beside it, and the
    environment's key only to the environment's."""
    row = row or CloudProvider(name=name)
    environment: CloudAccess = settings.CLOUD.get(name, CloudAccess())
    key = row.api_key or environment.api_key
    url = (row.base_url if row.api_key else "") or environment.base_url
    base_url = _usable(name, url)
    return ProviderState(
        name=name,
        enabled=row.enabled,
        api_key=key if base_url else "",
        base_url=base_url,
        source="" if not key else "database" if row.api_key else "environment",
        models=row.model_list,
        models_at=row.models_at,
        last_checked=row.last_checked,
        last_error=row.last_error,
    )


def _usable(name: str, url: str) -> str:
    """Empty for an address that cannot be used: a system check has said so at the start."""
    if not url:
        return PROVIDERS[name].base_url
    try:
        return normalise_provider_url(name, url)
    except BadBaseUrl:
        return ""
