"""What a node of llmlb's own kind tells of itself (docs/node.md): devices, use, loaded models, why others are refused.

Upstream's xLLM tells part of the same on the same pages; what is missing, or is not what it should be, is not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from nodes.models import GpuBackend

MAX_DEVICES: Final = 64
MAX_MODELS: Final = 500
MAX_REASON: Final = 300
MAX_ID: Final = 300


@dataclass(frozen=True, slots=True)
class Facts:
    """What a node reports of itself. Memory is bytes, usage 0 to 100; None and "" where it does not say.

    `refused_count` is how many of its models it does not execute, `has_figures` whether it has told its use just now.
    """

    concurrency: int | None = None
    version: str = ""
    started_at: str = ""
    gpu_backend: str = ""
    gpu_count: int | None = None
    gpu_memory_total: int | None = None
    gpu_memory_used: int | None = None
    gpu_usage: float | None = None
    gpu_score: int | None = None
    cpu_usage: float | None = None
    memory_total: int | None = None
    memory_used: int | None = None
    active_requests: int | None = None
    devices: tuple[dict[str, Any], ...] | None = None
    loaded_models: tuple[str, ...] | None = None
    refused_count: int | None = None
    has_figures: bool = False


def facts_of(health: Mapping[str, Any], system: Mapping[str, Any]) -> Facts:
    """From `/api/health` and `/api/system`, either of which may be empty."""
    gpu, memory = _mapping(health.get("gpu")), _mapping(health.get("memory"))
    backend = str(health.get("gpu_backend") or gpu.get("backend") or system.get("gpu_backend") or "").lower()
    devices = gpu.get("devices") or system.get("devices")
    total = _count(memory.get("total_bytes"))
    available = _count(memory.get("available_bytes"))
    active = health.get("active_requests", _mapping(health.get("load")).get("active_requests"))
    return Facts(
        concurrency=small_count(system.get("max_concurrency")),
        started_at=clean(str(health.get("started_at") or system.get("started_at") or ""), 60),
        gpu_backend=backend if backend in GpuBackend.values else "",
        gpu_count=small_count(gpu.get("device_count")),
        gpu_memory_total=_count(gpu.get("total_memory_bytes")),
        gpu_memory_used=_count(gpu.get("used_memory_bytes")),
        gpu_usage=percent(gpu.get("usage", gpu.get("utilization"))),
        gpu_score=small_count(gpu.get("capability_score")),
        cpu_usage=percent(_mapping(health.get("cpu")).get("usage")),
        memory_total=total,
        memory_used=total - available if total is not None and available is not None and available <= total else None,
        active_requests=small_count(active),
        devices=_devices(devices),
        loaded_models=_ids(health.get("loaded_models")),
        refused_count=small_count(_mapping(health.get("models")).get("refused")),
        has_figures=bool(gpu or memory or active is not None),
    )


def refused_of(document: Any) -> list[dict[str, str]]:
    """Model and reason of what a node's `/api/models` does not list as executable."""
    entries = _mapping(document).get("models")
    found = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return [
        {"model": clean(entry["id"], MAX_ID), "reason": _text(entry.get("reason"), MAX_REASON)}
        for entry in found
        if entry.get("executable") is False and isinstance(entry.get("id"), str)
    ][:MAX_MODELS]


def abilities_of_listing(document: Any, known: frozenset[str]) -> dict[str, dict[str, bool]]:
    """What each model of a `/v1/models` can do, and cannot, where its entry lists `capabilities`."""
    entries = _mapping(document).get("data")
    found = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return {
        entry["id"]: {name: name in entry["capabilities"] for name in known}
        for entry in found
        if isinstance(entry.get("id"), str) and isinstance(entry.get("capabilities"), list) and entry["capabilities"]
    }


def _devices(value: Any) -> tuple[dict[str, Any], ...] | None:
    if not isinstance(value, list):
        return None
    return tuple(_device(entry) for entry in value[:MAX_DEVICES] if isinstance(entry, dict))


def _device(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": _text(entry.get("name"), 100),
        "memory_total": _count(entry.get("total_memory_bytes", entry.get("memory_bytes"))),
        "memory_used": _count(entry.get("used_memory_bytes")),
        "usage": percent(entry.get("usage")),
        "score": small_count(entry.get("capability_score")),
    }


def _ids(value: Any) -> tuple[str, ...] | None:
    if not isinstance(value, list):
        return None
    return tuple(clean(text, MAX_ID) for text in value[:MAX_MODELS] if isinstance(text, str))


def _text(value: Any, length: int) -> str:
    return clean(value, length) if isinstance(value, str) else ""


def clean(text: str, length: int) -> str:
    """What a node says, as text that every database takes: PostgreSQL refuses NUL and lone surrogates."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:length])


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 2**63 else None


def small_count(value: Any) -> int | None:
    """A number that fits a database's integer; None for anything else."""
    return value if type(value) is int and 0 <= value < 2**31 else None


def percent(value: Any) -> float | None:
    """From 0 to 100; None for anything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value <= 100 else None
