"""What a node's `/v1/models` says, in OpenAI's form and in Ollama's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

MAX_MODELS: Final = 10_000
MAX_ID_LENGTH: Final = 300
MAX_OWNER_LENGTH: Final = 100
MAX_CONTEXT: Final = 2**31 - 1
_CONTEXT_FIELDS: Final = ("max_model_len", "context_length", "max_context_length")
_META_CONTEXT_FIELDS: Final = ("n_ctx_train", "n_ctx")


class NotAModelList(ValueError):
    """The answer is not a model list: a web page, an error, or JSON of another shape."""


@dataclass(frozen=True, slots=True)
class ListedModel:
    """One model as a node lists it. `context_length` is tokens, None where the node does not say."""

    id: str
    owned_by: str = ""
    context_length: int | None = None


def parse_listing(body: bytes) -> tuple[ListedModel, ...]:
    """The models of a listing, each id once, in the node's order. An empty list is a list.

    Entries without a usable id are skipped: one bad entry must not take a node's other models away.

    Raises:
        NotAModelList: the body is neither `{"data": [{"id"}]}` nor `{"models": [{"model" | "name"}]}`.
    """
    models = {model.id: model for model in _read(reversed(_entries(_decode(body))))}
    return tuple(reversed(models.values()))


def _decode(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise NotAModelList("not JSON") from error
    if not isinstance(document, dict):
        raise NotAModelList("not a JSON object")
    return document


def _entries(document: dict[str, Any]) -> list[Any]:
    for field in ("data", "models"):
        entries = document.get(field)
        if isinstance(entries, list):
            return entries[:MAX_MODELS]
    # Ollama without a model says {"object": "list", "data": null}.
    if document.get("object") == "list" and "data" in document and document["data"] is None:
        return []
    raise NotAModelList("no list of models in it")


def _read(entries: Iterator[Any]) -> Iterator[ListedModel]:
    for entry in entries:
        if isinstance(entry, dict) and (model_id := _id_of(entry)):
            owner = entry.get("owned_by")
            yield ListedModel(model_id, owner[:MAX_OWNER_LENGTH] if isinstance(owner, str) else "", _context_of(entry))


def _id_of(entry: dict[str, Any]) -> str | None:
    for field in ("id", "model", "name"):
        value = entry.get(field)
        if isinstance(value, str) and value.strip() and value.isprintable() and len(value) <= MAX_ID_LENGTH:
            return value
    return None


def _context_of(entry: dict[str, Any]) -> int | None:
    meta = entry.get("meta")
    values = [entry.get(field) for field in _CONTEXT_FIELDS]
    if isinstance(meta, dict):
        values += [meta.get(field) for field in _META_CONTEXT_FIELDS]
    return next((value for value in values if type(value) is int and 0 < value <= MAX_CONTEXT), None)
