"""Connections that come while the event loop is busy."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from typing import cast

import uvloop

from llmlb_site.serve.accepting import MOST_AT_ONCE, AcceptAll

WAITING = MOST_AT_ONCE + 72


class Greeter(asyncio.Protocol):
    """Counts who comes, and says hello."""

    made = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        type(self).made += 1
        client = cast(asyncio.Transport, transport)
        client.write(b"hello")
        client.close()


async def turns_until_all_are_in(stack: contextlib.ExitStack) -> int:
    """So many connections wait while the loop is busy. Returns: after how many turns all are in."""
    Greeter.made = 0
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1024))
    server = await asyncio.get_running_loop().create_server(AcceptAll(Greeter, [listener]), sock=listener, backlog=1024)
    address = listener.getsockname()
    waiting = [stack.enter_context(socket.create_connection(address, timeout=5)) for _ in range(WAITING)]
    turns = 0
    while Greeter.made < WAITING and turns < WAITING:
        time.sleep(0.001)  # noqa: ASYNC251 - a loop with much to do is what this is about
        await asyncio.sleep(0)
        turns += 1
    for client in waiting:
        assert await asyncio.to_thread(client.recv, 100) == b"hello"
    server.close()
    return turns


def test_all_who_wait_are_let_in_within_a_few_turns_of_the_loop() -> None:
    with contextlib.ExitStack() as stack:
        assert uvloop.run(asyncio.wait_for(turns_until_all_are_in(stack), 10)) < 20
