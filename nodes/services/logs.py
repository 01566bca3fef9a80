"""The newest lines of a node's own log, fetched when someone looks (SPEC-1f2a9c3d)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final

from django.utils.translation import gettext_lazy as _

from nodes.client import CallFailed, Reply, Target, call
from nodes.models import NodeType
from nodes.queries import get_node
from nodes.refusals import NodeRefused, NodeUnreachable, NoLogs, TooMuch

DEFAULT_LINES: Final = 200
MOST_LINES: Final = 1000
MAX_BYTES: Final = 10 * 1024 * 1024
TIMEOUT_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class NodeLogs:
    """Lines, oldest first, as the node gives them. `path` is its file's, where it has one."""

    entries: list[dict[str, str]]
    path: str = ""


def read_logs(*, node_id: int, lines: int = DEFAULT_LINES) -> NodeLogs:
    """Ask a node for its newest log lines. `lines` is brought to 1–1000.

    Raises:
        UnknownNode; NoLogs: it shows none; NodeUnreachable, NodeRefused (502); TooMuch: more than 10 MB.
    """
    node = get_node(node_id)
    if node.node_type != NodeType.XLLM:
        raise NoLogs
    path = f"/api/logs?tail={min(MOST_LINES, max(1, lines))}"
    try:
        reply = asyncio.run(call(Target(node.base_url, node.api_key), path, timeout=TIMEOUT_SECONDS, most=MAX_BYTES))
    except CallFailed as error:
        if error.kind == "too_large":
            raise TooMuch from error
        raise NodeUnreachable(_("The node %(reason)s.") % {"reason": error}) from error
    return _read(reply)


def _read(reply: Reply) -> NodeLogs:
    if reply.status in {404, 405, 501}:
        raise NoLogs
    document = reply.document
    entries = document.get("entries") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise NodeRefused(_("The node gave no logs: it answered %(status)s.") % {"status": reply.status})
    return NodeLogs([_entry(each) for each in entries[-MOST_LINES:]], str(document.get("path") or ""))


def _entry(each: Any) -> dict[str, str]:
    """One line: the texts of an object, or a plain text as the message of one."""
    fields = each if isinstance(each, dict) else {"message": each}
    # Lone surrogates are text to JSON and to nothing else.
    return {str(name): str(value).encode(errors="replace").decode() for name, value in fields.items()}
