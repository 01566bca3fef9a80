"""Models that a fake node is asked to fetch or to delete, in the APIs of llmlb's own node, Ollama and LM Studio."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import unquote

from nodes.fake.behaviour import Behaviour, SeenRequest
from nodes.fake.connection import Connection, head
from nodes.fake.kinds import Kind

STEP_SECONDS: Final = 0.05
LM_STUDIO: Final = "/api/v1/models/download"
Answer = tuple[int, Any]


@dataclass
class Task:
    """One download. `seconds` is how long it takes, `error` how it fails at its end."""

    id: str
    model: str
    size: int
    seconds: float
    error: str
    started: float
    cancelled: bool = False

    @property
    def share(self) -> float:
        return min(1.0, (time.monotonic() - self.started) / max(self.seconds, 1e-3))

    @property
    def state(self) -> str:
        if self.cancelled:
            return "cancelled"
        if self.share < 1:
            return "running"
        return "failed" if self.error else "success"


class Keeper(Protocol):
    """The fake node whose models they become."""

    models: list[str]
    kind: Kind
    behaviour: Behaviour


class Downloads:
    """The downloads of one fake node."""

    def __init__(self, node: Keeper) -> None:
        self._node = node
        self.tasks: dict[str, Task] = {}

    async def answer(self, request: SeenRequest, wire: Connection) -> bool | None:
        """Whether the connection stays open; None where the request is about something else."""
        self.settle()
        body = _document(request)
        owned_by = self._node.kind.owned_by
        if owned_by == "library" and request.path == "/api/pull":
            return await self._ollama_pull(str(body.get("model", "")), wire)
        answers = {"library": self._ollama, "organization_owner": self._lm_studio, "xllm": self._own}
        found = answers[owned_by](request, body) if owned_by in answers else None
        if found is None:
            return None
        await wire.reply(found[0], {}, found[1])
        return True

    def settle(self) -> None:
        """What has arrived is listed from now on."""
        for task in self.tasks.values():
            if task.state == "success" and task.model not in self._node.models:
                self._node.models.append(task.model)

    def _begin(self, model: str) -> Task:
        behaviour = self._node.behaviour
        number = f"task-{len(self.tasks) + 1}"
        size, seconds, error = behaviour.download_bytes, behaviour.download_seconds, behaviour.download_error
        self.tasks[number] = Task(number, model, size, seconds, error, time.monotonic())
        return self.tasks[number]

    def _delete(self, model: str) -> bool:
        if model not in self._node.models:
            return False
        self._node.models.remove(model)
        self.tasks = {number: task for number, task in self.tasks.items() if task.model != model}
        return True

    # --- llmlb's own

    def _own(self, request: SeenRequest, body: dict[str, Any]) -> Answer | None:
        if request.method == "DELETE" and request.path.startswith("/api/models/"):
            model = unquote(request.path.removeprefix("/api/models/"))
            return (200, {"deleted": model, "freed_bytes": 1}) if self._delete(model) else (404, {})
        if not request.path.startswith("/api/pulls"):
            return None
        if request.method == "POST":
            if "/" not in body.get("model", ""):
                message = "a model is named org/repository"
                return 400, {"error": {"message": message, "code": "invalid_pull"}}
            return 202, self._own_task(self._begin(str(body["model"]).lower()))
        task = self.tasks.get(request.path.removeprefix("/api/pulls/"))
        if task is None:
            return 404, {"error": {"message": "There is no such pull.", "code": "unknown_pull"}}
        task.cancelled = task.cancelled or request.method == "DELETE"
        return 200, self._own_task(task)

    def _own_task(self, task: Task) -> dict[str, Any]:
        return {
            "task_id": task.id,
            "model": task.model,
            "status": task.state,
            "downloaded_bytes": int(task.share * task.size),
            "total_bytes": task.size,
            "bytes_per_second": task.size / max(task.seconds, 1e-3),
            "error": task.error if task.state == "failed" else "",
            "progress": task.share,
        }

    # --- LM Studio

    def _lm_studio(self, request: SeenRequest, body: dict[str, Any]) -> Answer | None:
        if request.path == LM_STUDIO and request.method == "POST":
            model = str(body.get("model", "")).removeprefix("https://huggingface.co/")
            if model in self._node.models:
                return 200, {"status": "already_downloaded"}
            return 200, self._lm_studio_task(self._begin(model))
        if not request.path.startswith(f"{LM_STUDIO}/status/"):
            return None
        task = self.tasks.get(request.path.removeprefix(f"{LM_STUDIO}/status/"))
        return (404, {"error": "no such job"}) if task is None else (200, self._lm_studio_task(task))

    def _lm_studio_task(self, task: Task) -> dict[str, Any]:
        words = {"running": "downloading", "success": "completed"}
        return {
            "job_id": task.id,
            "status": words.get(task.state, task.state),
            "total_size_bytes": task.size,
            "downloaded_bytes": int(task.share * task.size),
            "bytes_per_second": task.size / max(task.seconds, 1e-3),
        }

    # --- Ollama

    def _ollama(self, request: SeenRequest, body: dict[str, Any]) -> Answer | None:
        if request.path != "/api/delete" or request.method != "DELETE":
            return None
        model = str(body.get("model", ""))
        return (200, b"") if self._delete(model) else (404, {"error": f"model '{model}' not found"})

    async def _ollama_pull(self, model: str, wire: Connection) -> bool:
        task = self._begin(model)
        await wire.send(head(200, {"content-type": "application/x-ndjson", "transfer-encoding": "chunked"}))
        await self._line(wire, {"status": "pulling manifest"})
        while (share := task.share) < 1:
            done = int(share * task.size)
            layer = {"digest": "sha256:aa", "total": task.size - 1000, "completed": min(done, task.size - 1000)}
            await self._line(wire, {"status": "pulling aa", **layer})
            await asyncio.sleep(STEP_SECONDS)
        if task.error:
            await self._line(wire, {"error": task.error})
        else:
            await self._line(wire, {"status": "pulling bb", "digest": "sha256:bb", "total": 1000, "completed": 1000})
            await self._line(
                wire,
                {
                    "status": "pulling aa",
                    "digest": "sha256:aa",
                    "total": task.size - 1000,
                    "completed": task.size - 1000,
                },
            )
            await self._line(wire, {"status": "success"})
            self.settle()
        await wire.send_chunk(b"")
        return True

    async def _line(self, wire: Connection, document: dict[str, Any]) -> None:
        await wire.send_chunk(json.dumps(document).encode() + b"\n")


def _document(request: SeenRequest) -> dict[str, Any]:
    try:
        document = json.loads(request.body or b"{}")
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
