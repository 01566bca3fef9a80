"""One request, from its first byte to its row in the history: what each step learns, the next one reads here."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

from history.entries import AttemptEntry
from llmlb_site.lib.direct import direct_of
from routing.core.errors import Refusal
from routing.core.table import Pair, Principal
from routing.core.usage import Tokens
from routing.gateway.spool import Spool
from routing.protocols.base import OPENAI, Api, Call, Dialect
from routing.state.limits import Hold

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
HeaderList = list[tuple[bytes, bytes]]

_QUERY: Final = re.compile(rb"[\x21-\x7e]+")
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
# Requests without an id get one of those that were drawn at once: each draw gives up the interpreter, and has to wait
# for it when other threads are busy. They begin with the time of the draw, so that those of a minute are neighbours in
# the history's index: a random place for each row would cost as much as the row. 80 bits of each are random.
_DRAWN: Final = 64
_RANDOM_PART: Final = re.compile(r".{20}")
_drawn: Final[list[str]] = []
os.register_at_fork(after_in_child=_drawn.clear)


class Exchange:
    """State of one request. Times are `time.monotonic()` seconds.

    A plain class with its first values on the class, because one is made for every request: what a request never
    touches costs it nothing.
    """

    principal: Principal | None = None
    api: Api | None = None
    dialect: Dialect = OPENAI
    body: bytes = b""
    upload: Spool | None = None
    call: Call | None = None
    streaming: bool = False  # it was asked for
    own_exclusions: Sequence[Pair] = ()
    poison: bool = False
    provider: str = ""  # the cloud provider that was asked, by its prefix
    queue_seconds: float = 0.0
    queue_headers: Mapping[str, str] = MappingProxyType({})
    notes: tuple[tuple[bytes, bytes], ...] = ()
    hold: Hold | None = None  # what is reserved of the key's limits
    limit_headers: Sequence[tuple[bytes, bytes]] = ()
    # What went to the client.
    status: int = 0
    first_byte: float | None = None
    bytes_out: int = 0
    captures: bool = True  # for the history: `captured` is the block at hand, which ends here; see kept.py
    captured_until: int = 0
    captured_blocks: Sequence[bytes] = ()
    finished: bool = False
    opaque: bool = False  # the answer is passed on without being understood
    binary: bool = False  # and it is no text: the history keeps its size alone
    without_address: Callable[[bytes], bytes] = bytes  # what a node says, without where it listens
    tell_break: Callable[[Refusal], bytes] | None = None  # how this very stream tells that no more will come
    # How it ended.
    error_code: str = ""
    error_message: str = ""
    outcome: str = ""
    tokens: Tokens | None = None
    deltas: int = 0
    completion_texts: Callable[[], Any] | None = None

    def __init__(self, scope: Scope, receive: Receive, send: Send, client_ip: str) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.direct = direct_of(scope)
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        given = self.headers.get(b"x-request-id")
        self.request_id = new_request_id() if given is None else request_id_of(given)
        self.client_ip = client_ip
        self.began = time.monotonic()
        self.started_at = datetime.now(UTC)
        self.attempts: list[AttemptEntry] = []
        self.captured: list[bytes] = []

    @property
    def query(self) -> str:
        """With its question mark, as it came; empty where there is none, or none that may stand in a request."""
        return query_of(self.scope)


def query_of(scope: Scope) -> str:
    """With its question mark, as it came; empty where there is none, or none that may stand in a request."""
    query: bytes = scope.get("query_string", b"")
    return f"?{query.decode('ascii')}" if _QUERY.fullmatch(query) else ""


def request_id_of(given: bytes) -> str:
    """The client's `X-Request-ID` if it is well-formed, else a new one."""
    return given.decode("ascii") if _REQUEST_ID.fullmatch(given) else new_request_id()


def new_request_id() -> str:
    if not _drawn:
        moment = f"{time.time_ns() // 1_000_000:012x}"
        _drawn.extend([moment + rest for rest in _RANDOM_PART.findall(os.urandom(10 * _DRAWN).hex())])
    return _drawn.pop()
