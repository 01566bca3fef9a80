"""Which APIs a node serves itself, besides chat: asked with an empty request, which starts nothing anywhere.

What serves an API says what the request lacks (400, 422; llama.cpp 500); what does not has no such path. Some servers
say the same of every path, so one that nobody serves is asked beside the others.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Final

from nodes.client import CallFailed, Reply, Target, call

ASKED: Final = ("/v1/messages", "/v1/messages/count_tokens", "/v1/responses")
NOBODYS: Final = "/v1/no-such-api"
# No such path; not with this method; not implemented.
NOT_SERVED: Final = frozenset({404, 405, 501})
# The node says nothing of the path with these: another key is wanted, it is busy, it is still loading.
NO_WORD: Final = frozenset({401, 403, 408, 429, 502, 503, 504})


async def native_apis(target: Target, *, deadline: float) -> frozenset[str] | None:
    """The paths among `ASKED` that the node serves; None where it gave no answer to tell it by.

    `deadline` is of `time.monotonic`.
    """
    replies = await asyncio.gather(*(_ask(target, path, deadline) for path in (NOBODYS, *ASKED)))
    control, answers = replies[0], dict(zip(ASKED, replies[1:], strict=True))
    if control is None or any(reply is None or reply.status in NO_WORD for reply in answers.values()):
        return None
    return frozenset(path for path, reply in answers.items() if reply is not None and _is_served(reply, control))


async def _ask(target: Target, path: str, deadline: float) -> Reply | None:
    try:
        return await call(target, path, timeout=max(0.05, deadline - time.monotonic()), body={})
    except CallFailed:
        return None


def _is_served(reply: Reply, control: Reply) -> bool:
    complains = reply.status >= 400 and reply.status not in NOT_SERVED
    return complains and reply.status != control.status and _is_object(reply.body)


def _is_object(body: bytes) -> bool:
    try:
        return isinstance(json.loads(body), dict)
    except (ValueError, RecursionError):
        return False
