"""An inference server that is never the bottleneck: canned answers, or streams whose chunks carry the time they left.

`python -m benchmarks.mock_node PORT [CHUNKS INTERVAL_SECONDS]`

One request costs it about 8 µs of CPU, one chunk about 12: it keeps no body, parses no JSON, and writes each chunk by
itself. A request asks for a stream by `"stream":true` in its body.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import cast

import uvloop

MODELS = json.dumps({"object": "list", "data": [{"id": "bench", "object": "model", "owned_by": "mock"}]}).encode()
ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "bench",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "word " * 150}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 200, "completion_tokens": 150, "total_tokens": 350},
    }
).encode()
# The stamp stands in the content, which every gateway hands on, also one that writes each chunk anew.
CHUNK = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"bench","choices":[{"index":0,'
    b'"delta":{"content":"n=%d sent=%.6f ' + b"x" * 100 + b'"},"finish_reason":%s}]}\n\n'
)
LAST = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"bench","choices":[],'
    b'"usage":{"prompt_tokens":9,"completion_tokens":%d,"total_tokens":%d}}\n\n'
)
STREAM_MARKS = (b'"stream":true', b'"stream": true')
# Longer bodies are not looked into: nobody here asks for a stream with a picture.
LONGEST_SEARCHED = 1 << 18


def response(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


MODELS_RESPONSE, ANSWER_RESPONSE = response(MODELS), response(ANSWER)
# vllm-router asks for what vLLM alone has (…/render) before each call, and goes on without it.
UNKNOWN_RESPONSE = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
ASKS_FOR_CHAT = b"post /v1/chat/completions http"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class Node(asyncio.Protocol):
    """Just enough HTTP/1.1 for one client that behaves and sends a Content-Length."""

    chunks = 100
    interval = 0.02

    def __init__(self) -> None:
        self._data = b""
        self._left = 0
        self._asks_for_stream = self._searched = False
        self._ready = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        while data:
            data = self._body(data) if self._left else self._head(data)

    def _head(self, data: bytes) -> bytes:
        """Returns: what follows the head; nothing while the head is not whole."""
        data = self._data + data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._data = data
            return b""
        self._data = b""
        head = data[:end].lower()
        at = head.find(b"content-length:")
        self._left = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        is_chat = head.startswith(ASKS_FOR_CHAT)
        self._ready = ANSWER_RESPONSE if is_chat else MODELS_RESPONSE if head.startswith(b"get") else UNKNOWN_RESPONSE
        self._searched, self._asks_for_stream = is_chat and self._left <= LONGEST_SEARCHED, False
        if not self._left:
            self._answer()
        return data[end + 4 :]

    def _body(self, data: bytes) -> bytes:
        """Only the end of what came is kept, so that a mark cut in two is found. Returns: what follows the body."""
        if len(data) <= self._left:
            piece, rest = data, b""
        else:
            piece, rest = data[: self._left], data[self._left :]
        self._left -= len(piece)
        if self._searched:
            seen = self._data + piece
            self._asks_for_stream = self._asks_for_stream or any(mark in seen for mark in STREAM_MARKS)
            self._data = seen[-20:] if self._left else b""
        if not self._left:
            self._answer()
        return rest

    def _answer(self) -> None:
        if self._asks_for_stream:
            self._transport.write(STREAM_HEAD)
            self._began, self._sent = self._loop.time(), 0
            self._tick()
        else:
            self._transport.write(self._ready)

    def _tick(self) -> None:
        """Send a chunk, and come back when the next one is due."""
        if self._transport.is_closing():
            return
        number = self._sent
        if number == self.chunks:
            self._chunk(LAST % (number, number + 9))
            self._chunk(b"data: [DONE]\n\n")
            self._transport.write(b"0\r\n\r\n")
            return
        self._chunk(CHUNK % (number, time.monotonic(), b'"stop"' if number == self.chunks - 1 else b"null"))
        self._sent = number + 1
        self._loop.call_at(self._began + self._sent * self.interval, self._tick)

    def _chunk(self, data: bytes) -> None:
        self._transport.write(b"%x\r\n%s\r\n" % (len(data), data))


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Node, "127.0.0.1", port, backlog=4096)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    if len(sys.argv) > 2:
        Node.chunks, Node.interval = int(sys.argv[2]), float(sys.argv[3])
    uvloop.run(main(int(sys.argv[1])))
