"""What a fake node answers to an inference request: always the same for the same request."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from nodes.fake.saying import deltas, finish_reason

DIMENSIONS: Final = 8
DONE: Final = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Asked:
    """An inference request, as far as the answer depends on it."""

    path: str
    body: dict[str, Any]

    @property
    def model(self) -> str:
        return str(self.body.get("model", ""))

    @property
    def streams(self) -> bool:
        return bool(self.body.get("stream")) and not self.path.endswith(("/embeddings", "/count_tokens"))

    @property
    def is_chat(self) -> bool:
        return self.path.endswith("/chat/completions")

    @property
    def wants_usage(self) -> bool:
        options = self.body.get("stream_options")
        return isinstance(options, dict) and bool(options.get("include_usage"))

    @property
    def limit(self) -> int | None:
        value = self.body.get("max_completion_tokens", self.body.get("max_tokens"))
        return value if isinstance(value, int) else None


def parse(path: str, body: bytes) -> Asked | None:
    """The request, or None where the body is not a JSON object."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return Asked(path, document) if isinstance(document, dict) else None


@dataclass(frozen=True)
class Answer:
    """One answer of the node `name` in `chunks` tokens: the token texts are `<name>-0 `, `<name>-1 ` …"""

    asked: Asked
    name: str
    chunks: int
    tells_usage: bool = True
    says: dict[str, Any] | None = None
    ends: dict[str, Any] = field(default_factory=dict)
    encoding: str | None = None

    @property
    def count(self) -> int:
        if self.says is not None:
            return len(list(deltas(self.says)))
        return self.chunks if self.asked.limit is None else min(self.chunks, self.asked.limit)

    @property
    def streams(self) -> bool:
        return self.asked.streams

    @property
    def stream_type(self) -> str:
        return "text/event-stream"

    @property
    def finish_reason(self) -> str:
        if "finish_reason" in self.ends:
            return str(self.ends["finish_reason"])
        if self.says is not None:
            return finish_reason(self.says)
        return "stop" if self.count == self.chunks else "length"

    @property
    def usage(self) -> dict[str, int]:
        prompt = _words(self.asked.body)
        return {"prompt_tokens": prompt, "completion_tokens": self.count, "total_tokens": prompt + self.count}

    def token(self, number: int) -> str:
        return f"{self.name}-{number} "

    def document(self, *, finished: bool = True) -> Any:
        """The whole answer, of a request that does not stream."""
        if self.asked.path.endswith("/embeddings"):
            return self._embeddings()
        text = "".join(self.token(number) for number in range(self.count))
        content = {"message": {"role": "assistant", "content": text}} if self.asked.is_chat else {"text": text}
        if self.says is not None:
            content = {"message": {"role": "assistant", "content": None, **self.says}}
        choice = {"index": 0, **content, "finish_reason": self.finish_reason if finished else None, **self.ends}
        kind = "chat.completion" if self.asked.is_chat else "text_completion"
        usage = {"usage": self.usage} if self.tells_usage else {}
        return {**self._frame(kind), "choices": [choice], **usage}

    def events(self) -> Iterator[bytes]:
        """The content events of a stream, one a token, and before the first one the role (chat)."""
        if self.asked.is_chat:
            yield self._event({"delta": {"role": "assistant", "content": ""}}, None)
        if self.says is not None:
            yield from (self._event({"delta": piece}, None) for piece in deltas(self.says))
            return
        for number in range(self.count):
            yield self._event(self._piece(self.token(number)), None)

    def tail(self, *, finished: bool = True) -> bytes:
        """What follows the content: the reason for the end, the usage if it was asked for, and `[DONE]`."""
        events = [self._event(self._piece("") | self.ends, self.finish_reason)] if finished else []
        if self.asked.wants_usage and self.tells_usage:
            events.append(_sse({**self._frame(self._chunk_kind), "choices": [], "usage": self.usage}))
        return b"".join([*events, DONE])

    @property
    def _chunk_kind(self) -> str:
        return "chat.completion.chunk" if self.asked.is_chat else "text_completion"

    def _piece(self, text: str) -> dict[str, Any]:
        if not self.asked.is_chat:
            return {"text": text}
        return {"delta": {"content": text} if text else {}}

    def _event(self, piece: dict[str, Any], finish_reason: str | None) -> bytes:
        choice = {"index": 0, **piece, "finish_reason": finish_reason}
        return _sse({**self._frame(self._chunk_kind), "choices": [choice]})

    def _frame(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"fake-{self.name}",
            "object": kind,
            "created": 1_700_000_000,
            "model": self.asked.model,
            "system_fingerprint": f"fake:{self.name}",
        }

    def _embeddings(self) -> dict[str, Any]:
        given = self.asked.body.get("input", "")
        texts = given if isinstance(given, list) else [given]
        packed = (self.encoding or self.asked.body.get("encoding_format")) == "base64"
        data = [
            {"object": "embedding", "index": index, "embedding": _vector(str(text), packed)}
            for index, text in enumerate(texts)
        ]
        words = _words(self.asked.body)
        usage = {"prompt_tokens": words, "total_tokens": words}
        return {"object": "list", "data": data, "model": self.asked.model, "usage": usage}


def _sse(document: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def _words(body: dict[str, Any]) -> int:
    """A stand-in for the number of prompt tokens: the words of all that was sent to be read."""
    parts = [body.get("prompt", ""), body.get("input", "")]
    messages = body.get("messages")
    if isinstance(messages, list):
        parts += [message.get("content", "") for message in messages if isinstance(message, dict)]
    return max(1, sum(len(str(part).split()) for part in parts))


def _vector(text: str, packed: bool) -> list[float] | str:
    digest = hashlib.sha256(text.encode()).digest()[:DIMENSIONS]
    numbers = [byte / 255 for byte in digest]
    return base64.b64encode(struct.pack(f"<{DIMENSIONS}f", *numbers)).decode() if packed else numbers
