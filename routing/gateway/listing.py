"""`GET /v1/models` and `/v1/models/{id}`: what the calling key may use, and a node can serve now."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import msgspec

from models_catalog.capabilities import EMBEDDING, IMAGE, RERANK, SPEECH_TO_TEXT, TEXT, TEXT_TO_SPEECH, TOOLS, VISION
from routing.core.errors import model_unknown
from routing.core.table import ModelInfo, Principal, RoutingTable
from routing.protocols.registry import APIS

_NOTHING = ModelInfo()
_UNKNOWN: Final[frozenset[str]] = frozenset()


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
    able = table.capabilities.get(model, _UNKNOWN)
    item: dict[str, Any] = {
        "id": name,
        "object": "model",
        "created": info.created,
        "owned_by": info.owned_by or "llmlb",
        "capabilities": sorted(able),
        "capability_flags": _flags(able),
        "supported_apis": supported_apis(able),
    }
    if info.context_length is not None:
        item["context_length"] = item["max_model_len"] = info.context_length
    return item


def _flags(able: frozenset[str]) -> dict[str, bool]:
    """The same as yes and no, in the words of earlier llmlb versions. What nothing is known of may be talked to."""
    talks = TEXT in able or not able
    return {
        "chat_completion": talks,
        "completion": talks,
        "embeddings": EMBEDDING in able,
        "fine_tune": False,
        "inference": True,
        "text_to_speech": TEXT_TO_SPEECH in able,
        "speech_to_text": SPEECH_TO_TEXT in able,
        "image_generation": IMAGE in able,
        "vision": VISION in able,
        "rerank": RERANK in able,
        "tools": TOOLS in able,
    }
