"""What the node tells of itself, and how it is steered. The shapes are those of docs/node.md."""

from __future__ import annotations

import asyncio
import os
import platform
import time
from typing import Any, Final

from llmlb_site import __version__
from nodes.runtime.backend import Device
from nodes.runtime.files.scan import BEING_WRITTEN
from nodes.runtime.models import ModelFile, Task
from nodes.runtime.registry import Listed
from nodes.runtime.serving.http import Refused, Request, Response, Route
from nodes.runtime.serving.logs import stamp_of
from nodes.runtime.serving.metrics import CONTENT_TYPE
from nodes.runtime.serving.node import Node
from nodes.runtime.serving.running import RunningEngine

OWNER: Final = "xllm"
DEFAULT_TAIL: Final = 200
MAX_TAIL: Final = 1000


class Telling:
    """The handlers, with the node that they speak of."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/v1/models", self.v1_models),
            Route("GET", "/v1/models/*", self.v1_model),
            Route("GET", "/api/system", self.system),
            Route("GET", "/api/health", self.health),
            Route("GET", "/api/ps", self.ps),
            Route("GET", "/api/models", self.models),
            Route("GET", "/api/models/*", self.model),
            Route("GET", "/api/logs", self.logs),
            Route("GET", "/metrics", self.metrics),
            Route("POST", "/api/models/load", self.load),
            Route("POST", "/api/models/unload", self.unload),
            Route("POST", "/api/models/refresh", self.refresh),
        ]

    async def v1_models(self, request: Request) -> Response:
        return Response.of({"object": "list", "data": [self._offered(entry) for entry in self._node.executable()]})

    async def v1_model(self, request: Request) -> Response:
        self._node.find(request.rest)
        entry = self._node.get(request.rest)
        assert entry is not None
        return Response.of(self._offered(entry))

    async def system(self, request: Request) -> Response:
        node = self._node
        engines = [
            {"name": engine.name, "installed": not reason, "reason": reason, "paths": sorted(engine.paths)}
            for engine in node.engines.values()
            for reason in [engine.is_installed()]
        ]
        document = {
            "xllm_version": __version__,
            "product": "llmlb-node",
            "started_at": stamp_of(node.started_at),
            "gpu_backend": node.backend.value,
            "max_concurrency": node.config.parallel,
            "devices": [_fixed(device) for device in await self._devices()],
            "engines": engines,
            "platform": f"{platform.system()}-{platform.machine()}".lower(),
            "cpu_count": os.cpu_count(),
        }
        return Response.of(document)

    async def health(self, request: Request) -> Response:
        node = self._node
        listed = node.listed()
        executable = sum(not entry.reason for entry in listed)
        # Not those that are being written: once their reason is for good, the number tells that there is news.
        changing = sum(entry.reason == BEING_WRITTEN for entry in listed)
        document = {
            "status": "ok",
            "xllm_version": __version__,
            "started_at": stamp_of(node.started_at),
            "uptime_seconds": round(time.time() - node.started_at, 1),
            "gpu_backend": node.backend.value,
            "gpu": self._gpu(await self._devices()),
            "memory": {
                **_machine_memory(),
                "engines_bytes": await asyncio.to_thread(lambda: node.pool.memory_bytes),
                "limit_bytes": node.config.memory_bytes,
            },
            "active_requests": node.pool.active_requests,
            "loaded_models": sorted(node.pool.running),
            "models": {"executable": executable, "refused": len(listed) - executable - changing},
        }
        return Response.of(document)

    async def ps(self, request: Request) -> Response:
        engines = list(self._node.pool.running.values())
        return Response.of({"models": await asyncio.to_thread(lambda: [self._engine(engine) for engine in engines])})

    async def models(self, request: Request) -> Response:
        found = [self._described(entry) for entry in self._node.listed()]
        return Response.of({"gpu_backend": self._node.backend.value, "models": found})

    async def model(self, request: Request) -> Response:
        return Response.of(self._described(self._known(request.rest)))

    async def logs(self, request: Request) -> Response:
        asked = request.query("tail", str(DEFAULT_TAIL))
        count = int(asked) if asked.isascii() and asked.isdigit() else DEFAULT_TAIL
        return Response.of({"entries": self._node.logs.tail(min(MAX_TAIL, max(1, count))), "path": ""})

    async def metrics(self, request: Request) -> Response:
        body = await asyncio.to_thread(self._node.metrics.text)
        return Response(body=body, media_type=CONTENT_TYPE)

    # --- steering -------------------------------------------------------------------------------------------------

    async def load(self, request: Request) -> Response:
        node = self._node
        wanted = await _wanted(request)
        node.pool.forgive(wanted)
        running = await node.pool.load(*node.find(wanted))
        ready = await node.pool.wait_ready(running, node.config.load_wait)
        return Response.of(await asyncio.to_thread(self._engine, running), 200 if ready else 202)

    async def unload(self, request: Request) -> Response:
        wanted = await _wanted(request)
        self._known(wanted)
        return Response.of({"unloaded": await self._node.pool.unload(wanted)})

    async def refresh(self, request: Request) -> Response:
        await self._node.refresh()
        return await self.models(request)

    # --- shapes ---------------------------------------------------------------------------------------------------

    def _known(self, model_id: str) -> Listed:
        entry = self._node.get(model_id)
        if entry is None:
            raise Refused(404, "model_not_found", f"The model '{model_id}' does not exist on this node.", param="model")
        return entry

    def _offered(self, entry: Listed) -> dict[str, Any]:
        model = entry.model
        return {
            "id": model.id,
            "object": "model",
            "created": int(model.modified),
            "owned_by": OWNER,
            "engine": entry.engine,
            **_traits(model),
            "state": self._node.pool.state_of(model.id).value,
        }

    def _described(self, entry: Listed) -> dict[str, Any]:
        model = entry.model
        return {
            "id": model.id,
            "executable": not entry.reason,
            "reason": entry.reason,
            "engine": entry.engine,
            **_traits(model),
            "has_chat_template": model.has_chat_template,
            "tensor_count": model.tensor_count,
            "expert_count": model.expert_count,
            "modified": stamp_of(model.modified),
            "state": self._node.pool.state_of(model.id).value,
        }

    def _engine(self, running: RunningEngine) -> dict[str, Any]:
        idle = self._node.config.idle
        process = running.process
        return {
            "id": running.model.id,
            "engine": running.engine.name,
            "state": running.state.value,
            "pid": process.pid if process is not None else None,
            "memory_bytes": process.memory_bytes() if process is not None else None,
            "active_requests": running.active,
            "requests": running.requests,
            "restarts": running.restarts,
            "loaded_at": stamp_of(running.loaded_at) if running.loaded_at is not None else None,
            "last_used_at": stamp_of(running.last_used),
            "unload_at": stamp_of(running.last_used + idle) if idle and running.is_idle else None,
        }

    async def _devices(self) -> tuple[Device, ...]:
        return await asyncio.to_thread(self._node.detector.devices)

    def _gpu(self, devices: tuple[Device, ...]) -> dict[str, Any]:
        """Of all GPUs together: memory added up, the use of the busiest."""
        usages = [device.utilisation for device in devices if device.utilisation is not None]
        scores = [device.capability_score for device in devices if device.capability_score is not None]
        return {
            "backend": self._node.backend.value,
            "device_count": len(devices),
            "total_memory_bytes": _sum(device.memory_total for device in devices),
            "used_memory_bytes": _sum(device.memory_used for device in devices),
            "usage": max(usages, default=None),
            "capability_score": max(scores, default=None),
            "devices": [
                {**_fixed(device), "used_memory_bytes": device.memory_used, "usage": device.utilisation}
                for device in devices
            ],
        }


async def _wanted(request: Request) -> str:
    """The model that a steering request names. Raises: Refused (400)."""
    model = (await request.document()).get("model")
    if not isinstance(model, str) or not model:
        raise Refused(400, "missing_parameter", "'model' must name a model.", param="model")
    return model


def capabilities(model: ModelFile) -> list[str]:
    """In the words of the gateway's catalogue."""
    return [model.task.value, *(["vision"] if model.task is Task.TEXT and model.projector is not None else [])]


def _traits(model: ModelFile) -> dict[str, Any]:
    return {
        "format": model.format.value,
        "architectures": list(model.architectures),
        "capabilities": capabilities(model),
        "context_length": model.context_length,
        "size_bytes": model.size_bytes,
        "quantization": model.quantization,
    }


def _fixed(device: Device) -> dict[str, Any]:
    """What does not change of a GPU."""
    return {
        "index": device.index,
        "name": device.name,
        "total_memory_bytes": device.memory_total,
        "capability_score": device.capability_score,
    }


def _sum(values: Any) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _machine_memory() -> dict[str, int | None]:
    """Main memory, where the system tells (Linux)."""
    told: dict[str, int] = {}
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                name, _, value = line.partition(":")
                told[name] = int(value.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return {"total_bytes": told.get("MemTotal"), "available_bytes": told.get("MemAvailable")}
