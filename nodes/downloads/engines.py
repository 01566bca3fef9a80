"""How each engine is asked for a model: llmlb's own node, Ollama and LM Studio. Others cannot fetch any."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import quote

from nodes.client import Reply, Target, call, call_for_lines
from nodes.models import DownloadState, NodeType
from nodes.telling import clean

ASK_SECONDS: Final = 15.0
LOOK_SECONDS: Final = 1.0
# Ollama says nothing while it checks the hash of a large layer.
SILENCE_SECONDS: Final = 300.0
HUB: Final = "https://huggingface.co/"
MAX_BYTES: Final = 2**62
MAX_TEXT: Final = 300


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to fetch. `model` is in the node's own words; `hf_repo` is a repository of Hugging Face."""

    model: str = ""
    hf_repo: str = ""
    quantization: str = ""
    filename: str = ""

    @property
    def name(self) -> str:
        """How the download is called: two of the same name on one node are the same."""
        name = self.hf_repo or self.model
        name += f":{self.quantization}" if self.quantization else ""
        return f"{name}/{self.filename}" if self.filename else name


@dataclass(frozen=True, slots=True)
class Look:
    """How far a node is. `total` is None where it does not say; `remote_id` is its own name for the download."""

    state: DownloadState
    done: int = 0
    total: int | None = None
    speed: float | None = None
    detail: str = ""
    error: str = ""
    remote_id: str = ""


class NotThere(Exception):
    """The node has no such model."""


class Refused(Exception):
    """The node does not do it. The text is the node's, cut to what may be shown."""


class Fetcher(Protocol):
    """One engine's way. Every method may raise CallFailed; `watch` ends with a look at an end."""

    can_delete: bool

    def watch(self, target: Target, wanted: Wanted, remote_id: str) -> AsyncGenerator[Look]:
        """Ask for a model, or go on with `remote_id`, and look until it is over."""
        ...

    async def cancel(self, target: Target, remote_id: str) -> None:
        """Stop it, where the node can."""
        ...

    async def delete(self, target: Target, model: str) -> None:
        """Raises: NotThere, Refused."""
        ...


class OwnNodeFetcher:
    can_delete = True

    async def watch(self, target: Target, wanted: Wanted, remote_id: str) -> AsyncGenerator[Look]:
        body = {
            "model": wanted.hf_repo or wanted.model,
            "quantization": wanted.quantization,
            "filename": wanted.filename,
        }
        while True:
            if remote_id:
                reply = await call(target, f"/api/pulls/{quote(remote_id, safe='')}", timeout=ASK_SECONDS)
            if not remote_id or reply.status == 404:  # not begun, or forgotten in a restart
                reply = await call(target, "/api/pulls", timeout=ASK_SECONDS, body=body)
            look = self._look(reply)
            remote_id = look.remote_id
            yield look
            if look.state not in {DownloadState.QUEUED, DownloadState.RUNNING}:
                return
            await asyncio.sleep(LOOK_SECONDS)

    def _look(self, reply: Reply) -> Look:
        document = _object(reply)
        if reply.status not in {200, 202} or document.get("status") not in DownloadState.values:
            return Look(DownloadState.FAILED, error=_complaint(reply))
        return Look(
            DownloadState(document["status"]),
            _size(document.get("downloaded_bytes")) or 0,
            _size(document.get("total_bytes")),
            _speed(document.get("bytes_per_second")),
            error=_text(document.get("error")),
            remote_id=_text(document.get("task_id"))[:100],
        )

    async def cancel(self, target: Target, remote_id: str) -> None:
        if remote_id:
            await call(target, f"/api/pulls/{quote(remote_id, safe='')}", timeout=ASK_SECONDS, method="DELETE")

    async def delete(self, target: Target, model: str) -> None:
        reply = await call(target, f"/api/models/{quote(model)}", timeout=ASK_SECONDS, method="DELETE")
        _refuse_unless_done(reply)


class OllamaFetcher:
    """`POST /api/pull` is a stream of lines: the layers one after another, each with its size."""

    can_delete = True

    async def watch(self, target: Target, wanted: Wanted, remote_id: str) -> AsyncGenerator[Look]:
        model = f"hf.co/{wanted.hf_repo}" if wanted.hf_repo else wanted.model
        model += f":{wanted.quantization}" if wanted.quantization else ""
        layers: dict[str, tuple[int, int]] = {}
        lines = call_for_lines(target, "/api/pull", body={"model": model, "stream": True}, silence=SILENCE_SECONDS)
        async with aclosing(lines):  # Ollama stops when nobody reads on
            async for status, line in lines:
                look = self._look(status, _parsed(line), layers)
                yield look
                if look.state is not DownloadState.RUNNING:
                    return

    def _look(self, status: int, document: Mapping[str, Any], layers: dict[str, tuple[int, int]]) -> Look:
        """`layers` are those told of so far, by digest: how much of each is there, and its size."""
        if status != 200 or "error" in document:
            return Look(DownloadState.FAILED, error=_text(document.get("error")) or f"it answered {status}")
        total = _size(document.get("total"))
        if isinstance(document.get("digest"), str) and total is not None:
            layers[document["digest"]] = (_size(document.get("completed")) or 0, total)
        done, whole = (sum(each) for each in zip(*layers.values(), strict=True)) if layers else (0, None)
        said = _text(document.get("status"))
        state = DownloadState.SUCCESS if said == "success" else DownloadState.RUNNING
        return Look(state, done, whole, detail="" if said == "success" else said[:200])

    async def cancel(self, target: Target, remote_id: str) -> None:
        """Nothing to do: it stops when nobody reads its lines."""

    async def delete(self, target: Target, model: str) -> None:
        reply = await call(target, "/api/delete", timeout=ASK_SECONDS, body={"model": model}, method="DELETE")
        _refuse_unless_done(reply)


class LmStudioFetcher:
    """`POST /api/v1/models/download` gives a job, which is looked at. It has no way to stop one, or to delete."""

    can_delete = False
    _STATES: Final = {
        "downloading": DownloadState.RUNNING,
        "paused": DownloadState.RUNNING,
        "completed": DownloadState.SUCCESS,
        "already_downloaded": DownloadState.SUCCESS,
        "failed": DownloadState.FAILED,
    }

    async def watch(self, target: Target, wanted: Wanted, remote_id: str) -> AsyncGenerator[Look]:
        body = {"model": f"{HUB}{wanted.hf_repo}" if wanted.hf_repo else wanted.model}
        if wanted.quantization:
            body["quantization"] = wanted.quantization
        while True:
            if remote_id:
                path = f"/api/v1/models/download/status/{quote(remote_id, safe='')}"
                reply = await call(target, path, timeout=ASK_SECONDS)
            if not remote_id or reply.status == 404:
                reply = await call(target, "/api/v1/models/download", timeout=ASK_SECONDS, body=body)
            look = self._look(reply)
            remote_id = look.remote_id
            yield look
            if look.state is not DownloadState.RUNNING:
                return
            await asyncio.sleep(LOOK_SECONDS)

    def _look(self, reply: Reply) -> Look:
        document = _object(reply)
        state = self._STATES.get(_text(document.get("status")))
        if reply.status != 200 or state is None:
            return Look(DownloadState.FAILED, error=_complaint(reply))
        total = _size(document.get("total_size_bytes"))
        return Look(
            state,
            _size(document.get("downloaded_bytes")) or 0,
            total,
            _speed(document.get("bytes_per_second")),
            detail="paused" if document["status"] == "paused" else "",
            error=_complaint(reply) if state is DownloadState.FAILED else "",
            remote_id=_text(document.get("job_id"))[:100],
        )

    async def cancel(self, target: Target, remote_id: str) -> None:
        """LM Studio has no call for it: it goes on by itself."""

    async def delete(self, target: Target, model: str) -> None:
        raise Refused("LM Studio has no call for it")


FETCHERS: Final[Mapping[str, Fetcher]] = {
    NodeType.XLLM: OwnNodeFetcher(),
    NodeType.OLLAMA: OllamaFetcher(),
    NodeType.LM_STUDIO: LmStudioFetcher(),
}


def _refuse_unless_done(reply: Reply) -> None:
    if reply.status == 404:
        raise NotThere
    if not 200 <= reply.status < 300:
        raise Refused(_complaint(reply))


def _complaint(reply: Reply) -> str:
    """What the node says is wrong, in either usual form."""
    error = _parsed(reply.body.decode(errors="replace")).get("error")
    said = _text(error.get("message")) if isinstance(error, dict) else _text(error)
    return said[:300] or f"it answered {reply.status} without a word that can be read"


def _object(reply: Reply) -> Mapping[str, Any]:
    return _parsed(reply.body.decode(errors="replace"))


def _parsed(text: str) -> Mapping[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _text(value: Any) -> str:
    """One line that every database takes; empty for anything else."""
    return clean(" ".join(value.split()), MAX_TEXT) if isinstance(value, str) else ""


def _size(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < MAX_BYTES else None


def _speed(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value < MAX_BYTES else None
