"""What a node says that its models can do, as far as its engine tells: capability → whether, by model id.

llama.cpp tells whether the model that it has loaded sees (`/props`), LM Studio the kind of each model
(`/api/v1/models`, `/api/v0/models`), Ollama a list for each (`/api/show`), llmlb's own node too (`/v1/models`). What an
engine does not speak of is left out: it is not known.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from nodes.capabilities import ALL, EMBEDDING, IMAGE, TEXT, TOOLS, VISION
from nodes.client import CallFailed, Target, call
from nodes.models import NodeType
from nodes.telling import abilities_of_listing

Reported = dict[str, dict[str, bool]]
TELLING: Final = frozenset({NodeType.LLAMA_CPP, NodeType.LM_STUDIO, NodeType.OLLAMA, NodeType.XLLM})

# Ollama is asked for one model at a time: so many at once, and no more than these in all.
AT_ONCE: Final = 8
MOST_MODELS: Final = 200


def read_pages(documents: Mapping[str, Any], model_ids: Iterable[str], node_type: NodeType | None) -> Reported:
    """What the pages that detection has fetched say, by path."""
    if node_type is NodeType.LLAMA_CPP:
        return _llama_cpp(_mapping(documents.get("/props")), model_ids)
    if node_type is NodeType.LM_STUDIO:
        newer = _entries(documents.get("/api/v1/models"), "models")
        older = _entries(documents.get("/api/v0/models"), "data")
        return {**_lm_studio(older, "id"), **_lm_studio(newer, "key")}
    if node_type is NodeType.XLLM:
        return abilities_of_listing(documents.get("/v1/models"), ALL - {TOOLS})
    return {}


async def ask_ollama(target: Target, model_ids: Iterable[str], *, deadline: float) -> Reported:
    """What Ollama shows of each model until `deadline`, which is of `time.monotonic`."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def ask(model_id: str) -> tuple[str, dict[str, bool]]:
        async with turns:
            left = deadline - time.monotonic()
            if left <= 0:
                return model_id, {}
            try:
                reply = await call(target, "/api/show", timeout=left, body={"model": model_id})
            except CallFailed:
                return model_id, {}
        return model_id, _ollama(_mapping(reply.document).get("capabilities"))

    answers = await asyncio.gather(*(ask(model_id) for model_id in list(model_ids)[:MOST_MODELS]))
    return {model_id: told for model_id, told in answers if told}


def _llama_cpp(props: Mapping[str, Any], model_ids: Iterable[str]) -> Reported:
    sees = _mapping(props.get("modalities")).get("vision")
    models = list(model_ids)
    if not isinstance(sees, bool) or len(models) != 1:  # a router of several models speaks of none of them
        return {}
    return {models[0]: {VISION: sees}}


def _lm_studio(entries: Iterable[Mapping[str, Any]], name: str) -> Reported:
    return {
        entry[name]: told for entry in entries if isinstance(entry.get(name), str) and (told := _lm_studio_kind(entry))
    }


def _lm_studio_kind(entry: Mapping[str, Any]) -> dict[str, bool]:
    kind = entry.get("type")
    if kind in ("embedding", "embeddings"):
        return {EMBEDDING: True, TEXT: False, VISION: False}
    if kind == "vlm":
        return {TEXT: True, VISION: True}
    if kind != "llm":
        return {}
    told = _mapping(entry.get("capabilities"))
    known = {VISION: told.get("vision"), TOOLS: told.get("trained_for_tool_use")}
    return {TEXT: True, **{name: value for name, value in known.items() if isinstance(value, bool)}}


def _ollama(listed: Any) -> dict[str, bool]:
    if not isinstance(listed, list) or not listed:
        return {}
    told = {TEXT: "completion" in listed, VISION: "vision" in listed, TOOLS: "tools" in listed}
    positive = {EMBEDDING: "embedding" in listed, IMAGE: "image" in listed}
    return told | {name: True for name, holds in positive.items() if holds}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _entries(document: Any, name: str) -> list[dict[str, Any]]:
    entries = _mapping(document).get(name)
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
