"""What a key's limits cost the gateway, in CPU µs per request: reserved, told in headers, settled.

python -m benchmarks.limits                               # the counters of one process
python -m benchmarks.limits redis://127.0.0.1:6379/9      # in Redis, 16 requests at once
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import django
import uvloop

ROUNDS, REQUESTS, AT_ONCE = 15, 5_000, 16
PLENTY = 10**12


async def measure(engine: Any, exchanges: Sequence[Any], limits: Any, entry: Any) -> float:
    """The best of several rounds: the box is not ours alone."""
    from routing.gateway import admit

    at_once = len(exchanges)

    async def one(each: Any) -> None:
        await admit.admit(each, engine, limits)
        admit.settle(each, engine, entry)

    best = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(REQUESTS // at_once):
            if at_once == 1:
                await one(exchanges[0])
            else:
                await asyncio.gather(*map(one, exchanges))
        best = min(best, (time.process_time() - began) / (REQUESTS // at_once * at_once))
    return best * 1e6


async def main(arguments: Sequence[str]) -> None:
    from datetime import UTC, datetime
    from types import SimpleNamespace

    from history.entries import RequestEntry
    from routing.core.limits import KeyLimits, Limit
    from routing.core.table import RoutingTable
    from routing.protocols.base import OPENAI, Call
    from routing.protocols.registry import APIS
    from routing.state.limits import MemoryLimiter
    from routing.state.redis_limits import RedisLimiter
    from routing.state.redis_link import RedisLink

    link = RedisLink(arguments[0]) if arguments else None
    limiter = RedisLimiter(link, prefix="llmlb:bench:") if link is not None else MemoryLimiter()
    if link is not None:
        await link.start()
        assert link.up, "no Redis there"
    engine = SimpleNamespace(table=RoutingTable(), limits=limiter)
    api = APIS["/v1/chat/completions"]
    body = b'{"model":"m","messages":[{"role":"user","content":"%b"}],"max_tokens":100}' % (b"hello " * 160)
    envelope = api.read_envelope(body)
    entry = RequestEntry(
        request_id="x",
        started_at=datetime.now(UTC),
        kind="chat",
        outcome="success",
        status=200,
        duration_ms=1,
        total_tokens=300,
    )

    def exchange() -> Any:
        call = Call(api.path, body, envelope, asked_model="m", model="m")
        fields = {
            "hold": None,
            "limit_headers": (),
            "status": 200,
            "error_code": "",
            "attempts": [1],
            "dialect": OPENAI,
        }
        return SimpleNamespace(api=api, call=call, **fields)

    def limit(model: str) -> Limit:
        return Limit(1, model, requests=PLENTY, tokens=PLENTY, concurrent=PLENTY, day=PLENTY, month=PLENTY)

    exchanges = [exchange() for _ in range(AT_ONCE if link is not None else 1)]
    for name, limits in (
        ("a key with all five limits", [limit("")]),
        ("and five more for the model", [limit(""), limit("m")]),
    ):
        found = KeyLimits.of(limits)
        print(f"{name}: {await measure(engine, exchanges, found, entry):.1f} µs")
    if link is not None:
        await link.aclose()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        os.environ.setdefault("LLMLB_DATA_DIR", directory)
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmlb_site.settings")
        django.setup()
        uvloop.run(main(sys.argv[1:]))
