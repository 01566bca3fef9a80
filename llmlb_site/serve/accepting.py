"""New connections while the loop is busy.

uvloop accepts one connection a turn of its loop (0.23: its libuv no longer accepts in a row; asyncio's own loop does).
A gateway that relays a thousand streams has some 20 turns a second: whoever connected then stood at the door for
seconds, and was not even seen. So whenever uvloop accepts one, all the others that wait are accepted too.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

# In one turn of the loop, so that those who are in do not wait for those who come.
MOST_AT_ONCE: Final = 128


class AcceptAll:
    """Stands where uvicorn wants a class of protocols: makes them, and sees to it that nobody is left waiting."""

    def __init__(self, make: Callable[..., asyncio.Protocol], listeners: Sequence[socket.socket]) -> None:
        self._make = make
        self._listeners = listeners
        self._is_due = False
        self._handing_over: set[asyncio.Task[None]] = set()

    def __call__(self, *args: Any, **kwargs: Any) -> asyncio.Protocol:
        self._look_soon(lambda: self._make(*args, **kwargs))
        return self._make(*args, **kwargs)

    def _look_soon(self, make: Callable[[], asyncio.Protocol]) -> None:
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._accept_waiting, make)

    def _accept_waiting(self, make: Callable[[], asyncio.Protocol]) -> None:
        self._is_due = False
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            for _ in range(MOST_AT_ONCE):
                try:
                    connection, _address = listener.accept()
                except OSError:  # nobody waits; or the listener is closed; or there are too many files: uvloop tells
                    break
                connection.setblocking(False)
                task = loop.create_task(self._hand_over(connection, make))
                self._handing_over.add(task)
                task.add_done_callback(self._handing_over.discard)
            else:
                self._look_soon(make)

    async def _hand_over(self, connection: socket.socket, make: Callable[[], asyncio.Protocol]) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(make, connection)
        except OSError:  # gone again already
            connection.close()
