"""The pages of llmlb's own node (docs/node.md), as a fake one tells them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs

GPU_BYTES: Final = 24 << 30
LINES: Final = 40
RUNNING: Final = {
    "engine": "llama.cpp",
    "state": "ready",
    "pid": 4711,
    "memory_bytes": 240_000_000,
    "active_requests": 0,
    "requests": 12,
    "restarts": 0,
    "unload_at": None,
}
TRAITS: Final = {
    "format": "gguf",
    "architectures": ["llama"],
    "size_bytes": 98_362_432,
    "quantization": "Q4_1",
    "context_length": 4096,
    "has_chat_template": True,
    "tensor_count": 272,
    "expert_count": None,
    "state": "unloaded",
}


@dataclass
class OwnNode:
    """What such a node tells besides its models. Tests change it while it runs. `refused`: model → why."""

    version: str = "5.2.0"
    started_at: str = "2026-11-21T20:00:00.000000Z"
    gpu_backend: str = "cuda"
    gpus: int = 2
    used_bytes: int = 12 << 30
    usage: float = 35.0
    refused: dict[str, str] = field(default_factory=lambda: {"org/broken": "model.gguf is cut off"})
    loaded: list[str] = field(default_factory=list)
    logs: list[str] = field(default_factory=lambda: [f"line {number}" for number in range(1, LINES + 1)])
    log_padding: int = 0  # bytes in each log line besides its words

    def page(self, path: str, query: str, models: Sequence[str], active: int) -> Any:
        """The document of a path; None where there is no such page."""
        match path:
            case "/livez":
                return "ok"
            case "/api/models/load":
                return {"state": "ready"}
            case "/api/models/unload":
                return {"unloaded": bool(self.loaded)}
            case "/api/system":
                return self._system()
            case "/api/health":
                return self._health(models, active)
            case "/api/ps":
                return {"models": [{"id": model, **RUNNING} for model in self.loaded]}
            case "/api/models":
                return {"gpu_backend": self.gpu_backend, "models": self._models(models)}
            case "/api/logs":
                return self._logs(int(parse_qs(query).get("tail", ["200"])[0]))
        return None

    def _system(self) -> dict[str, Any]:
        return {
            "xllm_version": self.version,
            "product": "llmlb-node",
            "started_at": self.started_at,
            "gpu_backend": self.gpu_backend,
            "max_concurrency": 1,
            "devices": self._devices(),
            "engines": [{"name": "llama.cpp", "installed": True, "reason": "", "paths": ["/v1/chat/completions"]}],
        }

    def _health(self, models: Sequence[str], active: int) -> dict[str, Any]:
        return {
            "status": "ok",
            "xllm_version": self.version,
            "started_at": self.started_at,
            "gpu_backend": self.gpu_backend,
            "gpu": {
                "backend": self.gpu_backend,
                "device_count": self.gpus,
                "total_memory_bytes": self.gpus * GPU_BYTES,
                "used_memory_bytes": self.used_bytes,
                "usage": self.usage,
                "capability_score": 9000,
                "devices": self._devices(),
            },
            "memory": {"total_bytes": 64 << 30, "available_bytes": 48 << 30, "engines_bytes": 0, "limit_bytes": 0},
            "active_requests": active,
            "loaded_models": list(self.loaded),
            "models": {"executable": len(models), "refused": len(self.refused)},
        }

    def _devices(self) -> list[dict[str, Any]]:
        one = {"name": "NVIDIA RTX 4090", "total_memory_bytes": GPU_BYTES, "capability_score": 9000}
        used = {"used_memory_bytes": self.used_bytes // max(1, self.gpus), "usage": self.usage}
        return [{"index": index, **one, **used} for index in range(self.gpus)]

    def _models(self, models: Sequence[str]) -> list[dict[str, Any]]:
        good = [{"id": model, "executable": True, "reason": "", **TRAITS, **entry(model)} for model in models]
        bad = {"executable": False, **TRAITS, "engine": ""}
        return good + [{"id": model, "reason": why, **bad} for model, why in self.refused.items()]

    def _logs(self, tail: int) -> dict[str, Any]:
        lines = [text + "x" * self.log_padding for text in self.logs[-tail:]]
        stamp = {"timestamp": self.started_at, "level": "info", "target": "llmlb.node"}
        return {"entries": [{**stamp, "message": line} for line in lines], "path": ""}


def entry(model: str) -> dict[str, Any]:
    """What a model's entry in `/v1/models` has besides the usual."""
    capability = "embedding" if "embed" in model else "text"
    sees = ["vision"] if "sees" in model else []
    return {"format": "gguf", "architectures": ["llama"], "engine": "llama.cpp", "capabilities": [capability, *sees]}
