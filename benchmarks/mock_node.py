"""An inference server that is never the bottleneck: canned answers, or streams whose chunks carry the time they left.

`python -m benchmarks.mock_node PORT [CHUNKS INTERVAL_SECONDS]`
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
CHUNK = (
    b'data: {"choices": [{"index": 0, "delta": {"n": %d, "sent": %.6f, "content": "'
    + b"x" * 180
    + b'"}, "finish_reason": %s}]}\n\n'
)


class Node(asyncio.Protocol):
    """Just enough HTTP/1.1 for one client that behaves."""

    chunks = 100
    interval = 0.02

    def __init__(self) -> None:
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = self._data[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._data) < end + 4 + length:
                return
            body = self._data[end + 4 : end + 4 + length]
            self._data = self._data[end + 4 + length :]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        if b'"stream":true' in body.replace(b" ", b""):
            self._stream = asyncio.create_task(self._send_stream())
        else:
            self._send(MODELS if head.startswith(b"get") else ANSWER)

    def _send(self, body: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        self._transport.write(head + body)

    async def _send_stream(self) -> None:
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        began = time.monotonic()
        for number in range(self.chunks):
            reason = b'"stop"' if number == self.chunks - 1 else b"null"
            self._chunk(CHUNK % (number, time.monotonic(), reason))
            await asyncio.sleep(max(0.0, began + (number + 1) * self.interval - time.monotonic()))
        self._event({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": self.chunks}})
        self._chunk(b"data: [DONE]\n\n")
        self._transport.write(b"0\r\n\r\n")

    def _event(self, document: object) -> None:
        self._chunk(b"data: " + json.dumps(document).encode() + b"\n\n")

    def _chunk(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(b"%x\r\n%s\r\n" % (len(data), data))


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Node, "127.0.0.1", port, backlog=4096)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    if len(sys.argv) > 2:
        Node.chunks, Node.interval = int(sys.argv[2]), float(sys.argv[3])
    uvloop.run(main(int(sys.argv[1])))
