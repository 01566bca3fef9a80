"""One connection of a gateway process to Redis: pipelined, never waited for longer than a moment, remade by itself.

What is shared between processes goes through it (limits, slots): a script a step, so that each step is one round trip
and atomic. While Redis is away every call fails at once, and the caller goes on with what its own process knows.
Belongs to the event loop that it was started on. The process tells every `BEAT_SECONDS` that it lives; what it holds
in Redis under its name is worth nothing `DEAD_SECONDS` after it stopped telling.

redis-py's asyncio client costs 60 µs a script here, this 3 (16 at once, uvloop): a request on a node with a limit
sends two. It speaks RESP3, so that messages of channels come on the same connection, in order with the answers.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import ssl
import uuid
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, cast

import hiredis
from redis.asyncio.connection import SSLConnection, parse_url

from llmlb_site.lib import health

log = logging.getLogger("llmlb.redis")

ANSWER_SECONDS: Final = 0.3
_LOOK_SECONDS: Final = ANSWER_SECONDS / 3
CONNECT_SECONDS: Final = 2.0
AGAIN_SECONDS: Final = 0.5
BEAT_SECONDS: Final = 2.0
DEAD_SECONDS: Final = 10.0
PROCESSES: Final = "llmlb:processes"  # a sorted set: each process, and when it was last heard of (ms)
PART: Final = "shared state"  # its name in /readyz
REASON_CHARACTERS: Final = 200
_NOT_YET: Final = object()
_pack: Final[Any] = hiredis.pack_command  # its stub knows tuples of one item only

# For scripts that ask whether a process lives: `now` is Redis's clock in ms, `is_alive(process)`.
LIVENESS: Final = f"""
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local function is_alive(process)
  local seen = redis.call('ZSCORE', '{PROCESSES}', process)
  return seen and now - tonumber(seen) < {DEAD_SECONDS * 1000:.0f}
end
"""

Argument = str | bytes | int | float
Answer = asyncio.Future[Any]
Heard = Callable[[Any], None]


class RedisDown(Exception):
    """Redis is not there, or did not answer in time. What was asked may or may not have been done."""


class Script:
    """A Lua script, sent by its digest once Redis knows it."""

    __slots__ = ("digest", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


_BEAT: Final = Script(
    LIVENESS
    + """
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - 3600000)
return now
"""
)


@dataclass(slots=True)
class _Asked:
    """A question under way. `unwanted` hears the answer where whoever asked has left."""

    answer: Answer | None
    script: Script | None
    command: tuple[Argument, ...]
    unwanted: Heard | None = None


class _Wire(asyncio.Protocol):
    """One connection, its questions in order, and the timer that ends it when nothing is answered for too long."""

    def __init__(self, ended: Callable[[_Wire], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = ended
        self._reader = hiredis.Reader(notEnoughData=_NOT_YET)
        self._asked: deque[_Asked] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._silent_looks = 0
        self._transport: asyncio.Transport
        self._out: list[bytes] = []
        self._over = False
        self.channels: dict[bytes, Heard] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def ask(self, asked: _Asked) -> None:
        self._asked.append(asked)
        self._send(asked.command)
        if self._timer is None:
            self._silent_looks = 0
            self._timer = self._loop.call_later(_LOOK_SECONDS, self._look)

    def subscribe(self, channel: str, heard: Heard) -> None:
        self.channels[channel.encode()] = heard
        self._send(("SUBSCRIBE", channel))  # RESP3 answers it with a push

    def data_received(self, data: bytes) -> None:
        self._silent_looks = 0
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not _NOT_YET:
                if isinstance(reply, hiredis.PushNotification):
                    self._pushed(reply)
                elif self._asked:
                    self._answered(reply)
        except hiredis.ProtocolError:
            self.end()

    def connection_lost(self, error: Exception | None) -> None:
        self.end()

    def end(self) -> None:
        """Close, and tell everyone who waits."""
        if self._over:
            return
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        self._transport.abort()
        asked, self._asked = self._asked, deque()
        self._ended(self)
        for each in asked:
            if each.answer is not None and not each.answer.done():
                each.answer.set_exception(RedisDown())

    def _send(self, command: tuple[Argument, ...]) -> None:
        """Whatever is sent in one turn of the loop goes out as one write: that halves what a command costs."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(_pack(command))

    def _flush(self) -> None:
        if not self._over:
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def _answered(self, reply: Any) -> None:
        asked = self._asked.popleft()
        answer = asked.answer
        if isinstance(reply, hiredis.ReplyError):
            self._refused(asked, reply)
        elif answer is not None and not answer.done():
            answer.set_result(reply)
        elif asked.unwanted is not None:
            asked.unwanted(reply)

    def _refused(self, asked: _Asked, reply: hiredis.ReplyError) -> None:
        answer, script, command = asked.answer, asked.script, asked.command
        if script is not None and command[0] == "EVALSHA" and str(reply).startswith("NOSCRIPT"):
            self.ask(_Asked(answer, script, ("EVAL", script.text, *command[2:]), asked.unwanted))
        elif answer is not None and not answer.done():
            answer.set_exception(reply)
        else:
            # Nobody hears of it, and what comes after it may rest on it: a new connection starts from what is true.
            log.error("Redis refused %s: %s", command[0], reply)
            self.end()

    def _pushed(self, push: list[Any]) -> None:
        if push[0] == b"message" and (heard := self.channels.get(push[1])) is not None:
            heard(push[2])

    def _look(self) -> None:
        """Nothing came for two looks: at one alone it may be this process that stood still."""
        self._timer = None
        if not self._asked:
            return
        self._silent_looks += 1
        if self._silent_looks > 2:
            self.end()
        else:
            self._timer = self._loop.call_later(_LOOK_SECONDS, self._look)


class RedisLink:
    """See the module. `process` names this process, and is new for each start."""

    def __init__(self, url: str) -> None:
        self.process = uuid.uuid4().hex[:12]
        self._url = url
        self._wire: _Wire | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._lost = asyncio.Event()
        self._on_beat: list[Callable[[], None]] = []
        self._scripts: list[Script] = [_BEAT]
        self._on_up: list[Callable[[], None]] = []
        self._on_down: list[Callable[[], None]] = []

    @property
    def up(self) -> bool:
        return self._wire is not None

    async def start(self) -> None:
        """Connect, or go on without: never raises."""
        await self._connect()
        self._keeper = asyncio.create_task(self._keep())

    async def aclose(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._wire is not None:
            self.tell("ZREM", PROCESSES, self.process)
            await asyncio.gather(self.call("PING"), return_exceptions=True)  # what was told before has arrived, too
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.end()
        health.forget(PART)

    def load(self, *scripts: Script) -> None:
        """Load these on each connection from now on: a script that Redis does not know yet may be overtaken."""
        self._scripts += scripts

    def on_beat(self, callback: Callable[[], None]) -> None:
        """Call this with every sign of life that goes out, and first when the connection has been (re)made."""
        self._on_beat.append(callback)

    def on_up(self, callback: Callable[[], None]) -> None:
        """Call this whenever a connection has been made: what it sends goes before anything but the sign of life."""
        self._on_up.append(callback)

    def on_down(self, callback: Callable[[], None]) -> None:
        """Call this when the connection is lost, before those who wait for answers are told."""
        self._on_down.append(callback)

    def renew(self) -> None:
        """Give up this connection: what Redis has and what is true here may not be the same."""
        if self._wire is not None:
            self._wire.end()

    def rejoin(self) -> None:
        """Tell all anew, as on a new connection: Redis has forgotten this process."""
        if self._wire is not None:
            self._beat(*self._on_up)

    def subscribe(self, channel: str, heard: Heard) -> None:
        """`heard(message)` for each message of the channel, as long as this connection stands."""
        if self._wire is not None:
            self._wire.subscribe(channel, heard)

    def call(self, *command: Argument) -> Answer:
        """The answer is to come: an exception in it is `RedisDown`, or `hiredis.ReplyError`."""
        return self._ask(None, command)

    def run(
        self, script: Script, keys: tuple[str, ...], *arguments: Argument, unwanted: Heard | None = None
    ) -> Coroutine[Any, Any, Any]:
        """Send a script now; the answer as of `call`. It goes to `unwanted` where whoever asks is cancelled."""
        return _awaited(self._ask(script, _evalsha(script, keys, arguments), unwanted), unwanted)

    def tell(self, *command: Argument) -> None:
        """Send, and do not wait; nothing happens while Redis is away."""
        if self._wire is not None:
            self._wire.ask(_Asked(None, None, command))

    def tell_script(
        self, script: Script, keys: tuple[str, ...], *arguments: Argument, heard: Heard | None = None
    ) -> None:
        """As `tell`. `heard` gets the answer, if one comes."""
        if self._wire is not None:
            self._wire.ask(_Asked(None, script, _evalsha(script, keys, arguments), heard))

    # --- inside ---------------------------------------------------------------------------------------------------

    def _ask(self, script: Script | None, command: tuple[Argument, ...], unwanted: Heard | None = None) -> Answer:
        answer: Answer = asyncio.get_running_loop().create_future()
        if self._wire is None:
            answer.set_exception(RedisDown())
        else:
            self._wire.ask(_Asked(answer, script, command, unwanted))
        return answer

    async def _keep(self) -> None:
        """Beat while the connection stands; make a new one when it does not."""
        while True:
            if self._wire is None:
                await asyncio.sleep(AGAIN_SECONDS)
                await self._connect()
                continue
            self._lost.clear()
            try:
                async with asyncio.timeout(BEAT_SECONDS):
                    await self._lost.wait()
            except TimeoutError:
                self._beat()

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                wire = await self._open()
        except hiredis.ReplyError as error:
            self._report(f"Redis refuses ({error})"[:REASON_CHARACTERS])
            return
        except (OSError, TimeoutError, RedisDown, hiredis.HiredisError, ValueError) as error:
            self._report(f"Redis: {type(error).__name__}")
            return
        self._wire = wire
        self._beat(*self._on_up)
        self._report("")

    async def _open(self) -> _Wire:
        """A connection that has been let in, and on which Redis takes what it is told: a replica would not."""
        given: dict[str, Any] = dict(parse_url(self._url))
        loop = asyncio.get_running_loop()
        if "path" in given:
            _, wire = await loop.create_unix_connection(lambda: _Wire(self._gone), given["path"])
        else:
            address = given.get("host", "localhost"), int(given.get("port", 6379))
            _, wire = await loop.create_connection(lambda: _Wire(self._gone), *address, ssl=_tls(given))
        hello: tuple[Argument, ...] = ("HELLO", 3)
        if given.get("password"):
            hello += ("AUTH", given.get("username") or "default", given["password"])
        greetings: list[tuple[Argument, ...]] = [
            hello,
            ("CLIENT", "SETNAME", f"llmlb-{self.process}"),
            *(("SCRIPT", "LOAD", script.text) for script in self._scripts),
        ]
        if given.get("db"):
            greetings.append(("SELECT", int(given["db"])))
        # Redis 7 lets a new user into no channel, and what is told on them would never be heard.
        greetings += [_evalsha(_BEAT, (PROCESSES,), (self.process,)), ("PUBLISH", f"llmlb:{self.process}", "")]
        try:
            for greeting in greetings:
                answer: Answer = loop.create_future()
                wire.ask(_Asked(answer, None, greeting))
                await answer
        except BaseException:
            wire.end()
            raise
        return wire

    def _beat(self, *first: Callable[[], None]) -> None:
        self.tell_script(_BEAT, (PROCESSES,), self.process)
        for callback in (*first, *self._on_beat):
            callback()

    def _gone(self, wire: _Wire) -> None:
        if wire is self._wire:
            self._wire = None
            self._lost.set()
            for callback in self._on_down:
                callback()
            self._report("Redis does not answer")

    def _report(self, trouble: str) -> None:
        detail = f"{trouble}; this process counts for itself" if trouble else ""
        if trouble and not any(part.name == PART for part in health.failing()):
            log.warning("%s", detail)
        health.report(PART, ok=not trouble, detail=detail)


async def _awaited(answer: Answer, unwanted: Heard | None) -> Any:
    try:
        return await answer
    except asyncio.CancelledError:
        # The answer may have come in the same moment: then the wire has given it to one who has left.
        if unwanted is not None and answer.done() and not answer.cancelled() and answer.exception() is None:
            unwanted(answer.result())
        raise


def _evalsha(script: Script, keys: tuple[str, ...], arguments: tuple[Argument, ...]) -> tuple[Argument, ...]:
    return ("EVALSHA", script.digest, len(keys), *keys, *arguments)


def _tls(given: dict[str, Any]) -> ssl.SSLContext | None:
    """What `rediss://…?ssl_ca_certs=…&ssl_certfile=…&ssl_cert_reqs=none` asks for."""
    if given.get("connection_class") is not SSLConnection:
        return None
    context = ssl.create_default_context(cafile=given.get("ssl_ca_certs"))
    if given.get("ssl_certfile"):
        context.load_cert_chain(given["ssl_certfile"], given.get("ssl_keyfile"))
    trusts_any = given.get("ssl_cert_reqs") == "none"
    context.check_hostname = not trusts_any and given.get("ssl_check_hostname", True)
    if trusts_any:
        context.verify_mode = ssl.CERT_NONE
    return context
