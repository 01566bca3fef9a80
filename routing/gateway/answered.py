"""How a node says no, and what that means: whose fault it is, and what the client is told of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import msgspec

from llmlb_site.lib.upstream.base import Headers, Target
from llmlb_site.lib.upstream.faults import NodeFault, TimeoutFault
from routing.core.errors import Refusal, node_connection_error, node_timeout

_NO_SUCH_MODEL: Final = re.compile(r"model.*(not found|not exist|unknown|no such)|(unknown|no such) model", re.I | re.S)
_NO_SUCH_PATH: Final = re.compile(
    r"^\W*(404)?\W*((page|file|path|url|route|endpoint|resource)\s+)?not found\W*$"
    r"|(unknown|invalid|unexpected|unsupported|no such) (request )?(url|path|endpoint|route)"
    r"|\b(url|path|endpoint|route)\b.*not (found|exist|supported)|cannot post",
    re.I | re.S,
)
# There is no such method on this path; not implemented.
_NOT_SERVED: Final = frozenset({405, 501})
# Faults after which asking the same client's request of another node makes sense, though this node is not to blame.
BUSY: Final = 429
# How long a node that loads the model is left alone before it is asked again, in seconds; also where it does not say.
_SHORTEST_LOAD, _LONGEST_LOAD = 1.0, 10.0


class AttemptFailed(Exception):
    """One node failed on the request before the client saw anything."""

    def __init__(
        self,
        *,
        fault: NodeFault | None = None,
        answered: Answered | None = None,
        refusal: Refusal | None = None,
        blame: bool = True,
    ) -> None:
        super().__init__()
        self.fault = fault
        self.answered = answered
        self.refusal = refusal
        self.blame = blame

    @property
    def reason(self) -> str:
        if self.fault is not None:
            return f"{self.fault.code}: {self.fault}"
        if self.refusal is not None:
            return self.refusal.code
        assert self.answered is not None
        return f"status {self.answered.status}"

    @property
    def well_formed_5xx(self) -> bool:
        return self.blame and self.answered is not None and self.answered.status >= 500 and self.answered.is_json

    @property
    def is_loading(self) -> bool:
        return self.answered is not None and self.answered.says_loading()


@dataclass(slots=True)
class Answered:
    """An error that a node answered, whole."""

    status: int
    headers: Headers
    body: bytes

    @property
    def is_json(self) -> bool:
        return isinstance(self.document, dict)

    @property
    def document(self) -> Any:
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, RecursionError):
            return None

    def says_no_such_model(self) -> bool:
        """A 404 about the model, not about a path that the node does not serve."""
        if self.status != 404 or not self.is_json:
            return False
        code, message = self._error()
        return code == "model_not_found" or bool(_NO_SUCH_MODEL.search(message))

    def says_loading(self) -> bool:
        """The model is on its way into memory: our own node's code (docs/node.md), and llama.cpp's words."""
        if self.status != 503 or not self.is_json:
            return False
        code, message = self._error()
        return code == "model_loading" or message == "Loading model"

    @property
    def load_seconds(self) -> float:
        """How long to wait before the node is asked again, as it says in `Retry-After`."""
        said = next((value for name, value in self.headers if name == b"retry-after"), b"")
        return min(_LONGEST_LOAD, max(_SHORTEST_LOAD, float(said) if said.isdigit() else 0.0))

    def says_no_such_path(self) -> bool:
        """That the node does not serve the path, or not so; a 404 about what the request names is not that."""
        if self.status != 404:
            return self.status in _NOT_SERVED
        _code, message = self._error()
        return not message or (bool(_NO_SUCH_PATH.search(message)) and not self.says_no_such_model())

    def _error(self) -> tuple[Any, str]:
        """Code and message, wherever servers put them."""
        document = self.document
        if not isinstance(document, dict):
            return None, ""
        error = document.get("error", document)
        if not isinstance(error, dict):
            return None, str(error)
        return error.get("code"), str(error.get("message") or error.get("detail") or "")


def refusal_for(fault: NodeFault, attempts: int) -> Refusal:
    return node_timeout(attempts) if isinstance(fault, TimeoutFault) else node_connection_error(attempts)


def without_address(said: bytes, target: Target) -> bytes:
    """A node's error may say where it listens; that is nobody's business."""
    return _address_of(target.host).sub(b"node", said)


@lru_cache(maxsize=4096)
def _address_of(host: str) -> re.Pattern[bytes]:
    """The host, with its port. A name that might be a word (`ollama`) is an address in a URL or before a port alone."""
    name = re.escape(host).encode()
    if "." in host or ":" in host:
        return re.compile(rb"(?<![\w.:-])\[?%s\]?(:\d+)?(?![\w-]|\.\w)" % name, re.I)
    return re.compile(rb"(?<=//)%s(:\d+)?(?![\w.-])|(?<![\w.-])%s:\d+" % (name, name), re.I)
