"""What the gateway knows of the fleet, frozen: who can serve which model. Rebuilt and swapped as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from routing.core.limits import KeyLimits, Limit

Pair = tuple[int, str]


@dataclass(frozen=True, slots=True)
class NodeEntry:
    """One node as the path of a request sees it. Times are seconds, `latency` that of its health checks.

    `limit` is how many requests it is given at once (0 = no limit), `timeout` the longest time without a byte.
    `speaks` are the paths that it serves itself besides chat, completions and embeddings. `gpu_usage` and
    `gpu_memory` are percent of what it has, `gpu_score` is 0 to 10000, as it reports them; 0 where it does not.
    """

    id: int
    name: str
    base_url: str
    api_key: str = field(default="", repr=False)
    limit: int = 0
    weight: float = 1
    latency: float | None = None
    timeout: float = 120.0
    online: bool = True
    draining: bool = False
    enabled: bool = True
    node_type: str = "openai_compatible"
    speaks: frozenset[str] = frozenset()
    gpu_usage: float = 0.0
    gpu_memory: float = 0.0
    gpu_score: int = 0

    @property
    def routable(self) -> bool:
        return self.online and self.enabled and not self.draining


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What `/v1/models` says of a model besides its id. `created` is Unix time."""

    owned_by: str = ""
    context_length: int | None = None
    created: int = 0


class Way(NamedTuple):
    """The model behind a name, and the nodes that have it but cannot do what an API wants of it."""

    model: str
    unfit: frozenset[int]


# Nodes on which a model has the same shortcomings, with these.
Inability = tuple[tuple[frozenset[str], frozenset[int]], ...]


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """The whole fleet at one moment. Model ids are matched exactly, case included."""

    nodes: Mapping[int, NodeEntry] = field(default_factory=dict)
    holders: Mapping[str, tuple[NodeEntry, ...]] = field(default_factory=dict)
    excluded: frozenset[Pair] = frozenset()
    known: frozenset[str] = frozenset()
    aliases: Mapping[str, str] = field(default_factory=dict)
    # What a model can do on some node; and, per model, what it certainly cannot on which nodes.
    capabilities: Mapping[str, frozenset[str]] = field(default_factory=dict)
    inability: Mapping[str, Inability] = field(default_factory=dict)
    models: Mapping[str, ModelInfo] = field(default_factory=dict)
    any_online: bool = False
    # Cloud providers that have a key, by the prefix of their models, and what they list, with the prefix.
    providers: Mapping[str, NodeEntry] = field(default_factory=dict)
    provider_models: frozenset[str] = frozenset()
    # By path and asked name, found out once for each: no part of what the table says.
    ways: dict[tuple[str, str], Way] = field(default_factory=dict, init=False, repr=False, compare=False)
    # Likewise, by a key's limits and the asked name.
    applying: dict[tuple[KeyLimits, str], tuple[Limit, ...]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def build(
        cls,
        nodes: Iterable[NodeEntry],
        executable: Iterable[Pair],
        excluded: Iterable[Pair] = (),
        *,
        catalogue: Iterable[str] = (),
        aliases: Mapping[str, str] | None = None,
        capabilities: Mapping[str, frozenset[str]] | None = None,
        inability: Mapping[str, Inability] | None = None,
        models: Mapping[str, ModelInfo] | None = None,
    ) -> RoutingTable:
        """From nodes, the (node id, model) pairs that each can execute, and those taken out after a failure."""
        by_id = {node.id: node for node in nodes}
        out = frozenset(excluded)
        known = set(catalogue)
        holders: dict[str, list[NodeEntry]] = {}
        for node_id, model in executable:
            known.add(model)
            node = by_id[node_id]
            if node.routable and (node_id, model) not in out:
                holders.setdefault(model, []).append(node)
        return cls(
            nodes=by_id,
            holders={model: tuple(found) for model, found in holders.items()},
            excluded=out,
            known=frozenset(known),
            aliases=dict(aliases or {}),
            capabilities=dict(capabilities or {}),
            inability=dict(inability or {}),
            models=dict(models or {}),
            any_online=any(node.online and node.enabled for node in by_id.values()),
        )

    def without(self, pairs: Iterable[Pair]) -> RoutingTable:
        """The same fleet with these (node id, model) pairs taken out."""
        out = frozenset(pairs)
        holders = dict(self.holders)
        for node_id, model in out:
            kept = tuple(node for node in holders.get(model, ()) if node.id != node_id)
            if kept:
                holders[model] = kept
            else:
                holders.pop(model, None)
        return replace(self, holders=holders, excluded=self.excluded | out)

    def with_node(self, changed: NodeEntry) -> RoutingTable:
        """The same fleet with what is known of one node replaced."""
        nodes = {**self.nodes, changed.id: changed}
        holders = {
            model: tuple(changed if node.id == changed.id else node for node in found)
            for model, found in self.holders.items()
        }
        return replace(self, nodes=nodes, holders=holders)

    def resolve(self, name: str) -> str:
        """The model that a name stands for: itself, unless it is an alias and no model has that very name."""
        return name if name in self.known else self.aliases.get(name, name)

    def unable(self, model: str, wanted: str) -> frozenset[int]:
        """The nodes on which it is known that the model cannot do this. They may be all that have it, or none."""
        found = [nodes for capabilities, nodes in self.inability.get(model, ()) if wanted in capabilities]
        return found[0] if len(found) == 1 else frozenset().union(*found)

    def with_providers(self, providers: Iterable[NodeEntry], models: Mapping[str, ModelInfo]) -> RoutingTable:
        """The same fleet beside these cloud providers, and the models that they list: with prefix."""
        return replace(
            self,
            providers={provider.name: provider for provider in providers},
            provider_models=frozenset(models),
            models={**self.models, **models},
        )

    def offers(self, name: str) -> bool:
        """A request may use this name now: a node has the model, or a configured provider lists it."""
        model = self.resolve(name)
        return model in self.holders or model in self.provider_models

    def routable_names(self) -> list[str]:
        """Every name that a request may use now: models that are offered, and aliases of those. Sorted."""
        names = self.provider_models.union(self.holders)
        return sorted(names.union(alias for alias, model in self.aliases.items() if model in names))


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is calling: one API key, as the path of a request needs it. `expires_at` is Unix time."""

    key_id: int
    name: str
    digest: bytes = field(repr=False)
    permissions: frozenset[str] = frozenset()
    allowed_models: frozenset[str] = frozenset()
    expires_at: float | None = None
    owner_id: int = 0
    limits: KeyLimits | None = None

    def may_use(self, model: str) -> bool:
        return not self.allowed_models or model in self.allowed_models
