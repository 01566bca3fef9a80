"""An inference server that computes nothing and misbehaves on demand: for tests, and to try failover by hand.

It is a raw HTTP/1.1 server on asyncio, so that it can also misbehave at TCP level. It needs no Django.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import socket
import threading
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

from nodes.fake import media, messages, ranking, responses
from nodes.fake.answers import Answer, Asked, parse
from nodes.fake.behaviour import LISTING_MODES, MODES, Behaviour, Mode, SeenRequest
from nodes.fake.connection import Connection, encode, head
from nodes.fake.downloads import Downloads
from nodes.fake.kinds import KINDS, listing
from nodes.fake.own_node import OwnNode

__all__ = ["KINDS", "MODES", "Behaviour", "FakeNode", "Mode", "SeenRequest", "running_fake_node"]

Result = TypeVar("Result")
INFERENCE: Final = (
    frozenset({"/v1/chat/completions", "/v1/completions", "/v1/embeddings"}) | media.PATHS | ranking.PATHS
)
# Whose answers are not those of chat, completions and embeddings.
FAMILIES: Final = (
    (media.PATHS, media.MediaAnswer),
    (messages.PATHS, messages.MessagesAnswer),
    (responses.PATHS, responses.ResponsesAnswer),
    (ranking.PATHS, ranking.RankingAnswer),
)
BACKLOG: Final = 4096
HTML: Final = "<!doctype html><title>Not an API</title><p>Hello"


class FakeNode:
    """One fake inference server. `models` and `behaviour` may be changed while it runs, also over `POST /_fake`."""

    def __init__(
        self,
        models: Sequence[str] = ("model-a",),
        *,
        kind: str = "openai_compatible",
        api_key: str | None = None,
        behaviour: Behaviour | None = None,
        name: str = "fake",
        apis: Iterable[str] = (),
    ) -> None:
        """`apis`: further paths that it serves itself, of `PATHS` in `nodes.fake.messages` and `.responses`."""
        self.models = list(models)
        self.kind = KINDS[kind]
        self.api_key = api_key
        self.behaviour = behaviour or Behaviour()
        self.name = name
        self.apis = frozenset(apis)
        self.responses = responses.Kept()
        self.own = OwnNode()  # what it tells as one of llmlb's own kind
        self.downloads = Downloads(self)
        self.host = "127.0.0.1"
        self.port = 0
        self.seen: list[SeenRequest] = []
        self.in_flight = 0
        self.max_in_flight = 0
        self.connections: set[Connection] = set()
        self._listener: socket.socket | None = None
        self._attaching: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def inferences(self) -> list[SeenRequest]:
        """What was seen on the inference paths alone."""
        return [request for request in self.seen if request.path in INFERENCE | self.apis]

    # --- life

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen. Port 0: the port that it had before, or any free one."""
        self._loop = asyncio.get_running_loop()
        self.host = host
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port or self.port), family=family, backlog=BACKLOG)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._loop.add_reader(self._listener, self._accept, self._loop, self._listener)

    def _accept(self, loop: asyncio.AbstractEventLoop, listener: socket.socket) -> None:
        # By hand: asyncio's own server loses a connection that it has accepted when it is closed at that moment.
        while True:
            try:
                accepted, _address = listener.accept()
            except OSError:
                return
            accepted.setblocking(False)
            attaching = loop.create_task(self._attach(loop, accepted))
            self._attaching.add(attaching)
            attaching.add_done_callback(self._attaching.discard)

    async def _attach(self, loop: asyncio.AbstractEventLoop, accepted: socket.socket) -> None:
        await loop.connect_accepted_socket(lambda: Connection(self), accepted)

    async def stop(self) -> None:
        """Close the listener, then every connection."""
        await self._close_listener()
        for connection in tuple(self.connections):
            connection.close()
        await asyncio.sleep(0)

    async def kill(self) -> None:
        """Die at once: every connection is reset, and new ones are refused."""
        await self._close_listener()
        for connection in tuple(self.connections):
            connection.reset()
        await asyncio.sleep(0)

    async def _close_listener(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        if self._attaching:
            await asyncio.wait(self._attaching)

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Await `work` on the loop of this node, from another thread: `node.run(node.kill())`."""
        assert self._loop is not None, "not started"
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=10)

    # --- answering

    async def answer(self, request: SeenRequest, wire: Connection) -> bool:
        """Answer one request, well or badly. Returns: whether the connection stays open."""
        if request.path == "/_fake":
            return await self._control(request, wire)
        self.seen.append(request)
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            return await self._dispatch(request, wire)
        finally:
            self.in_flight -= 1

    async def _dispatch(self, request: SeenRequest, wire: Connection) -> bool:
        if self.behaviour.mode == "hang" and not self.behaviour.only_models and self.behaviour.applies_to(""):
            return await self._hang()
        if not self._is_authorised(request):
            return await self._reply(
                wire, 401, {"error": {"message": "Invalid API Key", "type": "authentication_error"}}
            )
        if request.path == "/v1/models" and self.kind.lists_models:
            self.downloads.settle()
            return await self._list(wire)
        if request.path in INFERENCE | self.apis and request.method == "POST":
            return await self._infer(request, wire)
        if request.path.startswith(f"{responses.PATH}/") and responses.PATH in self.apis:
            return await self._reply(wire, *self.responses.serve(request))
        return await self._page(request, wire)

    def _is_authorised(self, request: SeenRequest) -> bool:
        is_open = request.path in {"/health", "/"}
        return self.api_key is None or is_open or request.headers.get("authorization") == f"Bearer {self.api_key}"

    async def _list(self, wire: Connection) -> bool:
        await asyncio.sleep(self.behaviour.models_latency)
        mode = self.behaviour.mode
        if mode in LISTING_MODES and self.behaviour.applies_to(""):
            if mode == "refuse_models":
                return await self._reply(wire, 500, {"error": {"message": "internal error", "type": "server_error"}})
            return await self._reply(wire, 200, HTML if mode == "garbage_models" else listing(self.kind, []))
        return await self._reply(wire, 200, listing(self.kind, self.models))

    async def _page(self, request: SeenRequest, wire: Connection) -> bool:
        if (kept := await self.downloads.answer(request, wire)) is not None:
            return kept
        if self.kind is KINDS["xllm"]:
            running = sum(request.ended is None and not request.aborted for request in self.inferences)
            if (page := self.own.page(request.path, request.query, self.models, running)) is not None:
                return await self._reply(wire, 200, page)
        if self.kind.show is not None and request.path == "/api/show":
            return await self._reply(wire, 200, self.kind.show(str(json.loads(request.body)["model"])))
        page = self.kind.pages.get(request.path)
        status, body = (200, page(self.models)) if page is not None else self.kind.unknown(request.path)
        return await self._reply(wire, status, body)

    async def _infer(self, request: SeenRequest, wire: Connection) -> bool:
        asked = media.parse(request) if request.path in media.PATHS else parse(request.path, request.body)
        if asked is None:
            return await self._reply(wire, 400, {"error": {"message": "not JSON", "type": "invalid_request_error"}})
        if asked.path in self.apis and not asked.model:
            return await self._reply(wire, 400, {"error": {"message": "no model", "type": "invalid_request_error"}})
        behaviour = self.behaviour
        misbehaves = (behaviour.mode != "ok" or behaviour.status != 200) and behaviour.applies_to(asked.model)
        mode = behaviour.mode if misbehaves else "ok"
        if mode != "slow_headers":
            await asyncio.sleep(behaviour.latency)
        if misbehaves and behaviour.status != 200:
            return await self._reply(wire, behaviour.status, behaviour.error_body or _error(behaviour.status))
        if mode == "unknown_model_404" or (asked.model not in self.models and not self.kind.any_model):
            return await self._reply(wire, 404, _no_such_model(asked.model))
        if asked.path in self.apis and (missing := self.responses.missing(asked)) is not None:
            return await self._reply(wire, 404, missing)
        return await self._infer_as(mode, asked, wire)

    async def _infer_as(self, mode: str, asked: Asked, wire: Connection) -> bool:
        if mode == "hang":
            return await self._hang()
        if mode in {"garbage", "cut_before_headers"}:
            if mode == "garbage":
                await wire.send(b"\x00\x01\x02 220 this is not HTTP at all\r\n\r\n" * 3)
            return self._cut(wire)
        if mode == "not_json":
            return await self._reply(wire, 200, HTML)
        if mode == "busy_429":
            return await self._reply(wire, 429, _error(429), {"retry-after": "1"})
        if mode == "flap" and self.behaviour.applied % 2:
            return await self._reply(wire, 500, _error(500))
        answer = self._answer(asked)
        if isinstance(answer, responses.ResponsesAnswer):
            self.responses.keep(answer)
        keep = await (self._stream(mode, answer, wire) if answer.streams else self._whole(mode, answer, wire))
        return keep and mode != "half_close"

    def _answer(self, asked: Asked) -> Answer:
        family = next((answer for paths, answer in FAMILIES if asked.path in paths), Answer)
        behaviour = self.behaviour
        return family(
            asked,
            self.name,
            behaviour.chunks,
            behaviour.tells_usage,
            behaviour.says,
            behaviour.ends,
            behaviour.encoding,
        )

    async def _hang(self) -> bool:
        await asyncio.get_running_loop().create_future()
        return False

    def _cut(self, wire: Connection) -> bool:
        if self.behaviour.reset:
            wire.reset()
        return False

    async def _whole(self, mode: str, answer: Answer, wire: Connection) -> bool:
        data, media_type = encode(answer.document(finished=mode != "no_finish"))
        start = head(200, {"content-type": media_type, "content-length": str(len(data)), **self._headers()})
        if mode == "slow_headers":
            await self._dribble(start, wire)
        else:
            await wire.send(start)
        if mode in {"cut_in_body", "cut_mid_stream"}:
            await wire.send(data[: len(data) // 2])
            return self._cut(wire)
        await wire.send(data)
        return True

    async def _stream(self, mode: str, answer: Answer, wire: Connection) -> bool:
        start = head(
            200,
            {"content-type": answer.stream_type, "transfer-encoding": "chunked", **self._headers()},
        )
        await (self._dribble(start, wire) if mode == "slow_headers" else wire.send(start))
        cuts = mode in {"cut_mid_stream", "cut_in_body"}
        for number, event in enumerate(answer.events()):
            if cuts and number >= self.behaviour.cut_after:
                await asyncio.sleep(0)
                return self._cut(wire)
            await wire.send_chunk(event)
            await asyncio.sleep(self.behaviour.chunk_interval)
        if cuts:
            return self._cut(wire)
        await wire.send_chunk(answer.tail(finished=mode != "no_finish"))
        await wire.send_chunk(b"")
        return True

    async def _dribble(self, data: bytes, wire: Connection) -> None:
        pause = (self.behaviour.latency or 1.0) / len(data)
        for position in range(len(data)):
            await wire.send(data[position : position + 1])
            await asyncio.sleep(pause)

    async def _reply(self, wire: Connection, status: int, body: Any, headers: dict[str, str] | None = None) -> bool:
        await wire.reply(status, {**self._headers(), **(headers or {})}, body)
        return True

    def _headers(self) -> dict[str, str]:
        return {"server": self.kind.server} if self.kind.server else {}

    # --- control over HTTP

    async def _control(self, request: SeenRequest, wire: Connection) -> bool:
        if request.method == "POST":
            try:
                self._apply(json.loads(request.body))
            except (TypeError, ValueError) as error:
                return await self._reply(wire, 400, {"error": str(error)})
        return await self._reply(wire, 200, self.state())

    def _apply(self, fields: dict[str, Any]) -> None:
        models = fields.pop("models", None)
        self.behaviour = self.behaviour.changed(fields)
        if models is not None:
            self.models = [str(model) for model in models]

    def state(self) -> dict[str, Any]:
        """What `GET /_fake` shows."""
        return {
            "name": self.name,
            "models": self.models,
            "behaviour": dataclasses.asdict(self.behaviour),
            "requests": len(self.seen),
            "inferences": len(self.inferences),
            "aborted": sum(request.aborted for request in self.seen),
            "aborted_at": {_id_of(request): request.aborted_at for request in self.seen if request.aborted},
            "in_flight": self.in_flight,
            "max_in_flight": self.max_in_flight,
        }


def _id_of(request: SeenRequest) -> str | None:
    """Who is asked as a cloud provider is not told the request's id, but what the client's program is called."""
    return request.headers.get("x-request-id") or request.headers.get("user-agent")


def _error(status: int) -> dict[str, Any]:
    return {"error": {"message": f"fake error {status}", "type": "server_error", "param": None, "code": None}}


def _no_such_model(model: str) -> dict[str, Any]:
    message = f"The model `{model}` does not exist."
    return {"error": {"message": message, "type": "NotFoundError", "param": None, "code": "model_not_found"}}


@contextlib.contextmanager
def running_fake_node(*args: Any, host: str = "127.0.0.1", port: int = 0, **kwargs: Any) -> Iterator[FakeNode]:
    """A fake node on a thread and a loop of its own, for code that is not asynchronous."""
    node = FakeNode(*args, **kwargs)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="fake-node", daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(node.start(host, port), loop).result(timeout=10)
        yield node
    finally:
        asyncio.run_coroutine_threadsafe(_finish(node), loop).result(timeout=10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=10)
        loop.close()


async def _finish(node: FakeNode) -> None:
    await node.kill()
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    await asyncio.sleep(0.01)  # sockets are closed a round after their transports
