"""Clients on raw sockets: exact about when bytes came, and cheap enough that they are not what is measured."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any, Final, Protocol

# One request of each dialect: its path, what it asks, and what its stream ends with when all is well.
WAV: Final = b"RIFF\x24\x00\x00\x00WAVEfmt "
MESSAGES: Final = [{"role": "user", "content": "Hello"}]
DIALECTS: Final[dict[str, tuple[str, dict[str, Any], bytes]]] = {
    "chat": ("/v1/chat/completions", {"messages": MESSAGES}, b"[DONE]"),
    "completions": ("/v1/completions", {"prompt": "Hello"}, b"[DONE]"),
    "responses": ("/v1/responses", {"input": "Hello"}, b"event: response.completed"),
    "messages": ("/v1/messages", {"messages": MESSAGES, "max_tokens": 50}, b"event: message_stop"),
}
# One request of every API: its path, and what it asks. That of a transcription is a form: see `upload`.
TRANSCRIPTION: Final = "transcription"
APIS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    **{name: (path, asked) for name, (path, asked, _end) in DIALECTS.items()},
    "embeddings": ("/v1/embeddings", {"input": "Hello"}),
    "rerank": ("/v1/rerank", {"query": "Hello", "documents": ["Hello", "Goodbye"]}),
    "speech": ("/v1/audio/speech", {"input": "Hello", "voice": "nova"}),
    "images": ("/v1/images/generations", {"prompt": "A hill"}),
    TRANSCRIPTION: ("/v1/audio/transcriptions", {}),
}


class Door(Protocol):
    """What clients ask: a gateway, or what stands in front of several. A port of this machine, and a key for it."""

    @property
    def port(self) -> int: ...

    @property
    def key(self) -> str: ...


@dataclass(slots=True)
class Answer:
    """One answer as its client saw it. `seconds` is from the first byte sent to the last byte read."""

    status: int
    body: bytes
    seconds: float
    first_byte: float = 0.0
    whole: bool = True
    attempts: int = 0


def request(
    door: Door,
    api: str = "chat",
    *,
    model: str = "model-a",
    stream: bool = False,
    id: str = "",
    key: str = "",
    **more: Any,
) -> bytes:
    """A whole request of this API, as bytes. `id` becomes its X-Request-ID, which the node is told too."""
    if api == TRANSCRIPTION:
        return upload(door, model=model, stream=stream, id=id, key=key)
    path, asked = APIS[api]
    body = json.dumps({"model": model, **asked, **({"stream": True} if stream else {}), **more}).encode()
    return head(door, path, len(body), id=id, key=key) + body


def upload(
    door: Door, *, model: str = "model-a", size: int = 1000, stream: bool = False, id: str = "", key: str = ""
) -> bytes:
    """A sound of `size` bytes that is to be written down: a whole request, as bytes."""
    fields = {"model": model, **({"stream": "true"} if stream else {})}
    parts = [f'--drill\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{fields[name]}\r\n' for name in fields]
    sound = '--drill\r\nContent-Disposition: form-data; name="file"; filename="talk.wav"\r\n\r\n'
    body = b"".join([*(part.encode() for part in parts), sound.encode(), WAV, bytes(size), b"\r\n--drill--\r\n"])
    media_type = "multipart/form-data; boundary=drill"
    return head(door, APIS[TRANSCRIPTION][0], len(body), id=id, key=key, media_type=media_type) + body


def head(
    door: Door, path: str, length: int, *, id: str = "", key: str = "", media_type: str = "application/json"
) -> bytes:
    """A cloud provider is not told the id, but the client's program: so that is called by it as well."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: drill",
        f"Authorization: Bearer {key or door.key}",
        f"Content-Type: {media_type}",
        "anthropic-version: 2023-06-01",
        f"Content-Length: {length}",
        *([f"X-Request-ID: {id}", f"User-Agent: {id}"] if id else []),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class Client:
    """One connection to the product, which asks one thing after the other."""

    def __init__(self, door: Door) -> None:
        self._port = door.port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    @property
    def is_open(self) -> bool:
        return self._reader is not None and not self._reader.at_eof()

    async def send(self, data: bytes) -> None:
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 20)
        self._writer.write(data)
        await self._writer.drain()

    async def ask(self, data: bytes) -> Answer:
        """Send, and read the whole answer. Raises: OSError or asyncio.IncompleteReadError, where none comes."""
        began = time.monotonic()
        await self.send(data)
        return await self.read(began)

    async def read(self, began: float) -> Answer:
        assert self._reader is not None
        raw = await self._reader.readuntil(b"\r\n\r\n")
        answer = Answer(int(raw[9:12]), b"", 0.0, first_byte=time.monotonic() - began)
        lower = raw.lower()
        if b"transfer-encoding: chunked" in lower:
            answer.body, answer.whole = await self._chunks()
        else:
            at = lower.index(b"content-length:")
            answer.body = await self._reader.readexactly(int(lower[at + 15 :].split(b"\r\n", 1)[0]))
        if (at := lower.find(b"x-llmlb-attempts:")) >= 0:
            answer.attempts = int(lower[at + 17 :].split(b"\r\n", 1)[0])
        answer.seconds = time.monotonic() - began
        if b"connection: close" in lower or not answer.whole:
            self.abort()
        return answer

    async def _chunks(self) -> tuple[bytes, bool]:
        """A chunked body, and whether it came to its own end."""
        assert self._reader is not None
        parts: list[bytes] = []
        try:
            while size := int(await self._reader.readline(), 16):
                parts.append(await self._reader.readexactly(size))
                await self._reader.readexactly(2)
            await self._reader.readexactly(2)
        except (OSError, asyncio.IncompleteReadError, ValueError):
            return b"".join(parts), False
        return b"".join(parts), True

    async def read_some(self) -> bytes:
        """What is there, waiting for the first of it; empty at the end of the connection."""
        assert self._reader is not None
        return await self._reader.read(65536)

    def abort(self) -> None:
        """Leave as a client does that was killed: a reset where something is unread, else an end."""
        if self._writer is not None:
            self._writer.transport.abort()
        self._reader = self._writer = None


def percentile(values: list[float], share: float) -> float:
    """Nearest rank; 0 for no values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


class Clients:
    """As many connections as are needed at once, used again when they are free."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._free: list[Client] = []

    async def ask(self, data: bytes) -> Answer | None:
        """The answer, or None where the connection ended without one."""
        client = Client(self._door)
        while self._free:  # the product lets go of connections that are idle for long, as every client must expect
            if (client := self._free.pop()).is_open:
                break
            client = Client(self._door)
        try:
            answer = await client.ask(data)
        except (OSError, asyncio.IncompleteReadError):
            client.abort()
            return None
        self._free.append(client)
        return answer

    def close(self) -> None:
        for client in self._free:
            client.abort()
        self._free.clear()


async def paced(clients: Clients, data: bytes, *, rate: float, count: int) -> list[Answer | None]:
    """`count` requests, one each 1/`rate` seconds whatever becomes of the others: an open loop."""
    began = time.monotonic()
    tasks = []
    for number in range(count):
        await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
        tasks.append(asyncio.create_task(clients.ask(data)))
    return list(await asyncio.gather(*tasks))
