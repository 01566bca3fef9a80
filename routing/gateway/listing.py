"""`GET /v1/models` and `/v1/models/{id}`: what the calling key may use, and a node can serve now."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from models_catalog.capabilities import TEXT
from routing.core.errors import model_unknown
from routing.core.table import ModelInfo, Principal, RoutingTable
from routing.protocols.registry import APIS

_NOTHING = ModelInfo()


def list_body(table: RoutingTable, principal: Principal) -> bytes:
    """Every routable model and alias that the key may use. An empty list is an answer, not an error."""
    names = [name for name in table.routable_names() if principal.may_use(name)]
    return msgspec.json.encode({"object": "list", "data": [model_object(table, name) for name in names]})


def one_body(table: RoutingTable, principal: Principal, name: str) -> bytes:
    """Raises: Refusal (404), also for a model that exists but not for this key."""
    if not principal.may_use(name) or not table.offers(name):
        raise model_unknown(name)
    return msgspec.json.encode(model_object(table, name))


def supported_apis(capabilities: frozenset[str]) -> list[str]:
    """What may be asked of a model: also what only a translation makes of it. Of nothing known: what texts can do."""
    return _apis_of(capabilities or frozenset({TEXT}))


@cache
def _apis_of(capabilities: frozenset[str]) -> list[str]:
    return [api.listed_as for api in APIS.values() if api.capability in capabilities]


def model_object(table: RoutingTable, name: str) -> dict[str, Any]:
    """OpenAI's model object, and what clients of other servers look for beside it."""
    model = table.resolve(name)
    info = table.models.get(model, _NOTHING)
    item: dict[str, Any] = {
        "id": name,
        "object": "model",
        "created": info.created,
        "owned_by": info.owned_by or "llmlb",
        "capabilities": sorted(table.capabilities.get(model, ())),
        "supported_apis": supported_apis(table.capabilities.get(model, frozenset())),
    }
    if info.context_length is not None:
        item["context_length"] = item["max_model_len"] = info.context_length
    return item
