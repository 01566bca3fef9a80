"""Which engine a node runs, told from evidence: what it lists, its headers, and pages that only one engine has.

Several servers imitate each other's pages (llama.cpp answers Ollama's), so no single sign decides: each counts
points, the engine with the most wins, and the signs are kept as the reason.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from nodes.apis import native_apis
from nodes.client import CallFailed, Reply, Target, call
from nodes.listing import NotAModelList, parse_listing
from nodes.models import NodeType
from nodes.reported import Reported, ask_ollama, read_pages
from nodes.telling import Facts, clean, facts_of, refused_of, small_count

BUDGET_SECONDS: Final = 0.9
SHOW_SECONDS: Final = 1.5
ENOUGH_POINTS: Final = 40
PAGES: Final = (
    "/",
    "/api/version",
    "/version",
    "/props",
    "/api/system",
    "/api/health",
    "/api/v1/models",
    "/api/v0/models",
)
OWNERS: Final[dict[str, NodeType]] = {
    "llamacpp": NodeType.LLAMA_CPP,
    "library": NodeType.OLLAMA,
    "vllm": NodeType.VLLM,
    "organization_owner": NodeType.LM_STUDIO,
    "xllm": NodeType.XLLM,
}


@dataclass(frozen=True, slots=True)
class Detection:
    """The engine, why, and what it reports. `sure` is False where nothing was seen because pages did not answer.

    `native_apis` are the paths besides chat that it serves itself, None where it did not tell; `abilities` is what it
    says of its models, `refused` the models that it has and does not execute, with the reason; None as above.
    """

    node_type: NodeType
    reason: str
    facts: Facts
    sure: bool
    native_apis: frozenset[str] | None = None
    abilities: Reported = field(default_factory=dict)
    refused: list[dict[str, str]] | None = None


@dataclass
class Evidence:
    """Points by engine, and the signs that gave them."""

    points: dict[NodeType, int] = field(default_factory=lambda: defaultdict(int))
    signs: dict[NodeType, list[str]] = field(default_factory=lambda: defaultdict(list))

    def count(self, seen: bool, node_type: NodeType, points: int, sign: str) -> None:
        if seen:
            self.points[node_type] += points
            self.signs[node_type].append(sign)

    def winner(self) -> NodeType | None:
        best = max(self.points, key=lambda node_type: self.points[node_type], default=None)
        return best if best is not None and self.points[best] >= ENOUGH_POINTS else None


async def detect(target: Target, listing: Reply, *, budget: float = BUDGET_SECONDS) -> Detection:
    """Ask a node what it is, all pages at once, in `budget` seconds at most. `listing` is its `/v1/models`."""
    deadline = time.monotonic() + budget
    apis = asyncio.create_task(native_apis(target, deadline=deadline))
    replies = await asyncio.gather(*(_page(target, path, deadline) for path in PAGES))
    pages = {path: reply for path, reply in zip(PAGES, replies, strict=True) if reply is not None}
    detection = judge(listing, pages)
    return replace(
        detection,
        native_apis=await apis,
        abilities=await _abilities(target, detection.node_type, listing, pages),
        refused=await _refused(target, detection.node_type),
    )


async def _refused(target: Target, node_type: NodeType) -> list[dict[str, str]] | None:
    """What a node of llmlb's own kind does not execute. Others do not tell."""
    if node_type is not NodeType.XLLM:
        return []
    reply = await _page(target, "/api/models", time.monotonic() + SHOW_SECONDS)
    return None if reply is None else refused_of(reply.document)


async def _abilities(target: Target, node_type: NodeType, listing: Reply, pages: Mapping[str, Reply]) -> Reported:
    try:
        model_ids = [model.id for model in parse_listing(listing.body)]
    except NotAModelList:
        return {}
    if node_type is NodeType.OLLAMA:
        return await ask_ollama(target, model_ids, deadline=time.monotonic() + SHOW_SECONDS)
    documents = {path: reply.document for path, reply in pages.items()}
    return read_pages({**documents, "/v1/models": listing.document}, model_ids, node_type)


async def _page(target: Target, path: str, deadline: float) -> Reply | None:
    try:
        return await call(target, path, timeout=max(0.05, deadline - time.monotonic()))
    except CallFailed:
        return None


def judge(listing: Reply, pages: Mapping[str, Reply]) -> Detection:
    """The verdict on what was seen."""
    evidence = Evidence()
    _judge_listing(evidence, listing)
    _judge_pages(evidence, pages)
    documents = {path: reply.document for path, reply in pages.items()}
    node_type = evidence.winner()
    facts = read_facts(documents, node_type)
    if node_type is None:
        return Detection(NodeType.OPENAI_COMPATIBLE, "no sign of a known engine", facts, sure=len(pages) == len(PAGES))
    return Detection(node_type, ", ".join(evidence.signs[node_type])[:200], facts, sure=True)


def _judge_listing(evidence: Evidence, listing: Reply) -> None:
    server = listing.headers.get("server", "").lower()
    evidence.count(server.startswith("llama.cpp"), NodeType.LLAMA_CPP, 60, "Server: llama.cpp")
    evidence.count("ollama" in server, NodeType.OLLAMA, 60, "Server: ollama")
    evidence.count("xllm" in server, NodeType.XLLM, 60, "Server: xllm")
    document = listing.document
    entries = document.get("data") if isinstance(document, dict) else None
    first = next((entry for entry in entries or [] if isinstance(entry, dict)), {})
    owner = first.get("owned_by")
    if isinstance(owner, str) and (owner_type := OWNERS.get(owner.lower())):
        evidence.count(True, owner_type, 45, f"owned_by {owner}")
    evidence.count("max_model_len" in first, NodeType.VLLM, 20, "max_model_len")
    evidence.count("n_ctx_train" in _mapping(first.get("meta")), NodeType.LLAMA_CPP, 30, "meta.n_ctx_train")


def _judge_pages(evidence: Evidence, pages: Mapping[str, Reply]) -> None:
    text = {path: reply.body[:200] for path, reply in pages.items() if reply.status == 200}
    seen = {path: _mapping(reply.document) for path, reply in pages.items()}
    evidence.count("xllm_version" in seen.get("/api/system", {}), NodeType.XLLM, 100, "/api/system xllm_version")
    evidence.count(text.get("/", b"").startswith(b"Ollama is running"), NodeType.OLLAMA, 60, "/ says Ollama")
    evidence.count(_has_text(seen, "/api/version", "version"), NodeType.OLLAMA, 40, "/api/version")
    evidence.count(_has_text(seen, "/version", "version"), NodeType.VLLM, 20, "/version")
    evidence.count("total_slots" in seen.get("/props", {}), NodeType.LLAMA_CPP, 60, "/props total_slots")
    evidence.count(_is_lm_studio_v1(seen.get("/api/v1/models", {})), NodeType.LM_STUDIO, 90, "/api/v1/models")
    evidence.count(_is_lm_studio_v0(seen.get("/api/v0/models", {})), NodeType.LM_STUDIO, 90, "/api/v0/models")
    evidence.count(
        any(b"Unexpected endpoint or method" in body for body in text.values()),
        NodeType.LM_STUDIO,
        30,
        "its words for an unknown page",
    )


def _has_text(seen: Mapping[str, Mapping[str, Any]], path: str, name: str) -> bool:
    return isinstance(seen.get(path, {}).get(name), str)


def _is_lm_studio_v1(document: Mapping[str, Any]) -> bool:
    return any({"key", "publisher"} <= entry.keys() for entry in _entries(document, "models"))


def _is_lm_studio_v0(document: Mapping[str, Any]) -> bool:
    return any({"publisher", "arch", "state"} <= entry.keys() for entry in _entries(document, "data"))


def read_facts(documents: Mapping[str, Any], node_type: NodeType | None) -> Facts:
    """What the pages of one node report, by path."""
    seen = {path: _mapping(document) for path, document in documents.items()}
    props, system = seen.get("/props", {}), seen.get("/api/system", {})
    facts = facts_of(seen.get("/api/health", {}), system)
    slots = small_count(props.get("total_slots")) if node_type is NodeType.LLAMA_CPP else facts.concurrency
    return replace(facts, concurrency=slots, version=_version(seen, props, system))


def _version(seen: Mapping[str, Mapping[str, Any]], props: Mapping[str, Any], system: Mapping[str, Any]) -> str:
    candidates = (
        system.get("xllm_version"),
        props.get("build_info"),
        seen.get("/api/version", {}).get("version"),
        seen.get("/version", {}).get("version"),
    )
    return next((clean(value, 60) for value in candidates if isinstance(value, str) and value), "")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _entries(document: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    entries = document.get(name)
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
