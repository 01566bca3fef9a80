"""Cloud providers on real local sockets: they answer in the recorded shapes of OpenAI, Google and Anthropic.

The shapes are those of https://platform.openai.com/docs/api-reference, https://ai.google.dev/api and
https://docs.anthropic.com/en/api, cut down to what differs between answers.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from nodes.fake.behaviour import SeenRequest
from nodes.fake.connection import Connection, head

KEY = "secret-key-of-the-provider"


@dataclass
class Script:
    """What the provider answers to inference. `events` are sent one by one, `cut_after` so many of them."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    events: Sequence[bytes] = ()
    interval: float = 0.0
    cut_after: int | None = None
    silent: bool = False
    media_type: str = ""


class FakeProvider:
    """One provider: `script` says what it answers, `seen` what it was asked."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.script = Script()
        self.models: Any = LISTS[name]
        self.models_status = 200
        self.models_latency = 0.0
        self.seen: list[SeenRequest] = []
        self.connections: set[Connection] = set()
        self.url = ""
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Refuse connections from now on."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in tuple(self.connections):
            connection.close()
        await asyncio.sleep(0)

    @property
    def asked(self) -> dict[str, Any]:
        """The last request for inference, as JSON."""
        body: dict[str, Any] = json.loads(self.inferences[-1].body)
        return body

    @property
    def inferences(self) -> list[SeenRequest]:
        return [request for request in self.seen if request.method == "POST"]

    async def answer(self, request: SeenRequest, wire: Connection) -> bool:
        self.seen.append(request)
        if not self._knows(request):
            await wire.reply(401, {}, ERRORS[self.name](401, f"Incorrect API key provided: {KEY}."))
            return True
        if request.method == "GET" and request.path.endswith("/models"):
            await asyncio.sleep(self.models_latency)
            await wire.reply(self.models_status, {}, self.models)
            return True
        return await self._infer(wire)

    def _knows(self, request: SeenRequest) -> bool:
        name, value = {
            "openai": ("authorization", f"Bearer {KEY}"),
            "google": ("x-goog-api-key", KEY),
            "anthropic": ("x-api-key", KEY),
        }[self.name]
        if self.name == "anthropic" and "anthropic-version" not in request.headers:
            return False
        return request.headers.get(name) == value and KEY not in request.query

    async def _infer(self, wire: Connection) -> bool:
        script = self.script
        if script.silent:
            await asyncio.Event().wait()
        if not script.events:
            await wire.reply(script.status, script.headers, script.body)
            return True
        media_type = script.media_type or "text/event-stream"
        await wire.send(head(200, {"content-type": media_type, "transfer-encoding": "chunked", **script.headers}))
        for number, event in enumerate(script.events):
            if number == script.cut_after:
                wire.reset()
                return False
            await wire.send_chunk(event)
            await asyncio.sleep(script.interval)
        await wire.send_chunk(b"")
        return True


# --- errors and lists ---------------------------------------------------------------------------------------------


def openai_error(status: int, message: str) -> dict[str, Any]:
    kind = {401: "invalid_request_error", 429: "rate_limit_error"}.get(status, "server_error")
    code = {401: "invalid_api_key", 429: "rate_limit_exceeded"}.get(status)
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def google_error(status: int, message: str) -> dict[str, Any]:
    name = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 429: "RESOURCE_EXHAUSTED"}.get(status, "INTERNAL")
    return {"error": {"code": status, "message": message, "status": name, "details": []}}


def anthropic_error(status: int, message: str) -> dict[str, Any]:
    kind = {400: "invalid_request_error", 401: "authentication_error", 429: "rate_limit_error"}
    error = {"type": kind.get(status, "overloaded_error"), "message": message}
    return {"type": "error", "error": error, "request_id": "req_011"}


ERRORS = {"openai": openai_error, "google": google_error, "anthropic": anthropic_error}
LISTS: dict[str, Any] = {
    "openai": {
        "object": "list",
        "data": [
            {"id": "gpt-4o", "object": "model", "created": 1715367049, "owned_by": "system"},
            {"id": "text-embedding-3-small", "object": "model", "created": 1705948997, "owned_by": "system"},
        ],
    },
    "google": {
        "models": [
            {
                "name": "models/gemini-2.5-flash",
                "displayName": "Gemini 2.5 Flash",
                "inputTokenLimit": 1048576,
                "outputTokenLimit": 65536,
                "supportedGenerationMethods": ["generateContent", "countTokens"],
            },
            {"name": "models/gemini-embedding-001", "supportedGenerationMethods": ["embedContent"]},
            {"name": "models/veo-3", "supportedGenerationMethods": ["predictLongRunning"]},
        ]
    },
    "anthropic": {
        "data": [
            {
                "type": "model",
                "id": "claude-sonnet-4-5",
                "display_name": "Claude Sonnet 4.5",
                "created_at": "2025-09-29T00:00:00Z",
            }
        ],
        "has_more": False,
        "first_id": "claude-sonnet-4-5",
        "last_id": "claude-sonnet-4-5",
    },
}


# --- answers ------------------------------------------------------------------------------------------------------


def sse(document: Any, name: str = "", end: str = "\n\n") -> bytes:
    line = "\r\n" if "\r" in end else "\n"
    event = f"event: {name}{line}" if name else ""
    return f"{event}data: {json.dumps(document)}{end}".encode()


def openai_answer(model: str, text: str) -> dict[str, Any]:
    return {
        "id": "chatcmpl-123",
        "object": "chat.completion",
        "created": 1700000000,
        "model": model,
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": text}, "logprobs": None, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
        "system_fingerprint": "fp_1",
    }


def openai_stream(model: str, *texts: str) -> list[bytes]:
    frame = {"id": "chatcmpl-123", "object": "chat.completion.chunk", "created": 1700000000, "model": model}

    def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
        return sse({**frame, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
    return [
        chunk({"role": "assistant", "content": ""}),
        *[chunk({"content": text}) for text in texts],
        chunk({}, "stop"),
        sse({**frame, "choices": [], "usage": usage}),
        b"data: [DONE]\n\n",
    ]


def google_answer(*parts: dict[str, Any], finish: str | None = "STOP", **values: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}, "index": 0}
    if finish is not None:
        candidate["finishReason"] = finish
    usage = {"promptTokenCount": 9, "candidatesTokenCount": 3, "totalTokenCount": 17, "thoughtsTokenCount": 5}
    return {
        "candidates": [candidate],
        "usageMetadata": usage,
        "modelVersion": "gemini-2.5-flash",
        "responseId": "r-1",
        **values,
    }


def google_stream(*answers: dict[str, Any]) -> list[bytes]:
    return [sse(answer, end="\r\n\r\n") for answer in answers]


def anthropic_answer(*blocks: dict[str, Any], stop: str = "end_turn") -> dict[str, Any]:
    return {
        "id": "msg_013",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5",
        "content": list(blocks),
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": {
            "input_tokens": 9,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 4,
            "output_tokens": 3,
        },
    }


def anthropic_stream(*deltas: tuple[dict[str, Any], list[dict[str, Any]]], stop: str = "end_turn") -> list[bytes]:
    """Each of `deltas` is a content block as it starts, and the deltas that fill it."""
    message = {**anthropic_answer(), "stop_reason": None, "usage": {"input_tokens": 9, "output_tokens": 1}}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": message}, {"type": "ping"}]
    for index, (block, pieces) in enumerate(deltas):
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        events += [{"type": "content_block_delta", "index": index, "delta": piece} for piece in pieces]
        events.append({"type": "content_block_stop", "index": index})
    delta = {"stop_reason": stop, "stop_sequence": None}
    events.append({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 3}})
    events.append({"type": "message_stop"})
    return [sse(event, str(event["type"])) for event in events]
