"""What real inference servers say about themselves, so that a fake one can say the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from nodes.fake import own_node

Models = Sequence[str]
Page = Any  # str: text, sent as text/html; anything else: JSON


@dataclass(frozen=True)
class Kind:
    """One engine: its headers, its model entries, and the pages that only it has."""

    server: str | None = None
    owned_by: str = "organization"
    entry: Callable[[str], dict[str, Any]] = lambda model: {}
    pages: dict[str, Callable[[Models], Page]] = field(default_factory=dict)
    also_models: bool = False
    lists_models: bool = True
    any_model: bool = False
    unknown: Callable[[str], tuple[int, Page]] = lambda path: (404, {"detail": "Not Found"})
    show: Callable[[str], Page] | None = None  # the answer to POST /api/show about one model


def _sees(model: str) -> bool:
    """The fake models that see have `sees` in their name."""
    return "sees" in model


def _ollama_show(model: str) -> Page:
    words = ["embedding"] if "embed" in model else ["completion", "tools", *(["vision"] if _sees(model) else [])]
    return {"details": {"family": "llama"}, "capabilities": words}


def _tags(models: Models) -> Page:
    return {
        "models": [{"name": model, "model": model, "size": 1000, "details": {"family": "llama"}} for model in models]
    }


def _llama_props(models: Models) -> Page:
    return {
        "default_generation_settings": {"n_ctx": 4096},
        "total_slots": 4,
        "model_path": f"/models/{models[0] if models else 'none'}.gguf",
        "build_info": "b6700-abcdef0",
        "chat_template": "",
        "modalities": {"vision": any(map(_sees, models)), "audio": False},
    }


def _lm_studio_v0(models: Models) -> Page:
    entry = {"object": "model", "type": "llm", "publisher": "fake", "arch": "llama", "compatibility_type": "gguf"}
    extra = {"quantization": "Q4_K_M", "state": "loaded", "max_context_length": 8192}
    return {"object": "list", "data": [{"id": model, **entry, **extra} for model in models]}


def _lm_studio_v1(models: Models) -> Page:
    entry = {"publisher": "fake", "architecture": "llama", "format": "gguf", "max_context_length": 8192}
    return {
        "models": [
            {"key": model, "display_name": model, "loaded_instances": [], **entry, **_lm_studio_kind(model)}
            for model in models
        ]
    }


def _lm_studio_kind(model: str) -> dict[str, Any]:
    if "embed" in model:
        return {"type": "embedding"}
    return {"type": "llm", "capabilities": {"vision": _sees(model), "trained_for_tool_use": True}}


def _openapi(title: str) -> Callable[[Models], Page]:
    return lambda models: {"openapi": "3.1.0", "info": {"title": title, "version": "0.3.2"}, "paths": {}}


_VLLM_METRICS = "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 0.0\n"
_WEB_PAGE = "<!doctype html><title>An app</title><p>Hello"
_LLAMA_ENTRY = {"meta": {"n_vocab": 32000, "n_ctx_train": 4096, "n_embd": 2048, "size": 1000}}

KINDS: Final[dict[str, Kind]] = {
    "openai_compatible": Kind(server="uvicorn"),
    "xllm": Kind(owned_by="xllm", entry=own_node.entry),
    "ollama": Kind(
        owned_by="library",
        pages={
            "/": lambda models: "Ollama is running",
            "/api/version": lambda models: {"version": "0.12.3"},
            "/api/tags": _tags,
            "/api/ps": lambda models: {"models": []},
        },
        unknown=lambda path: (404, "404 page not found"),
        show=_ollama_show,
    ),
    "lm_studio": Kind(
        owned_by="organization_owner",
        pages={"/api/v0/models": _lm_studio_v0, "/api/v1/models": _lm_studio_v1},
        unknown=lambda path: (200, {"error": f"Unexpected endpoint or method. (GET {path})"}),
    ),
    "vllm": Kind(
        server="uvicorn",
        owned_by="vllm",
        entry=lambda model: {"max_model_len": 32768, "root": model, "parent": None},
        pages={
            "/version": lambda models: {"version": "0.11.0"},
            "/metrics": lambda models: _VLLM_METRICS,
            "/health": lambda models: "",
        },
    ),
    "llama_cpp": Kind(
        server="llama.cpp",
        owned_by="llamacpp",
        entry=lambda model: _LLAMA_ENTRY,
        pages={
            "/props": _llama_props,
            "/slots": lambda models: [{"id": slot, "n_ctx": 4096, "is_processing": False} for slot in range(4)],
            "/health": lambda models: {"status": "ok"},
        },
        also_models=True,
        any_model=True,
        unknown=lambda path: (404, {"error": {"code": 404, "message": "File Not Found", "type": "not_found_error"}}),
    ),
    "llama_cpp_python": Kind(
        server="uvicorn",
        owned_by="me",
        pages={"/openapi.json": _openapi("🦙 llama.cpp Python API")},
        any_model=True,
    ),
    "web_page": Kind(server="uvicorn", lists_models=False, unknown=lambda path: (200, _WEB_PAGE)),
    "asr": Kind(server="uvicorn", lists_models=False),
}


def listing(kind: Kind, models: Models) -> dict[str, Any]:
    """The body of `/v1/models`."""
    entries = [
        {"id": model, "object": "model", "created": 1_700_000_000, "owned_by": kind.owned_by, **kind.entry(model)}
        for model in models
    ]
    body: dict[str, Any] = {"object": "list", "data": entries}
    return {**_tags(models), **body} if kind.also_models else body
