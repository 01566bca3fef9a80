"""Where calls to nodes run: one event loop in a thread of each worker process, and one thread for their results.

A Celery task starts the calls and returns. So a node that never answers holds no worker thread, however many of them
there are, and each result is written the moment it is in. What is lost when the process ends is done again: it is
due by a column in the database.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, ParamSpec, TypeVar

from django.db import close_old_connections, connections

log = logging.getLogger("llmlb.nodes")

Params = ParamSpec("Params")
Result = TypeVar("Result")
STOP_SECONDS: Final = 5.0


class Background:
    """Runs coroutines of this process on a loop of their own. Made by `background()`."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="llmlb-nodes-writer")
        self._running: set[Future[None]] = set()
        self._thread = threading.Thread(target=self._run_loop, name="llmlb-nodes", daemon=True)
        self._thread.start()

    def submit(
        self, work: Callable[Params, Coroutine[Any, Any, None]], *args: Params.args, **kwargs: Params.kwargs
    ) -> None:
        """Start `work(…)` and return. What it raises is logged."""
        future = asyncio.run_coroutine_threadsafe(_logged(work, *args, **kwargs), self._loop)
        self._running.add(future)
        future.add_done_callback(self._running.discard)

    async def write(self, function: Callable[Params, Result], *args: Params.args, **kwargs: Params.kwargs) -> Result:
        """Call a function that uses the database, from a coroutine on this loop. One at a time, in order."""

        def in_writer() -> Result:
            close_old_connections()
            try:
                return function(*args, **kwargs)
            finally:
                self._release_connections()

        return await asyncio.get_running_loop().run_in_executor(self._writer, in_writer)

    def wait_idle(self, timeout: float) -> bool:
        """Wait until nothing runs any more. Returns: whether it came to that within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while running := tuple(self._running):
            for future in running:
                try:
                    future.result(timeout=max(0.0, deadline - time.monotonic()))
                except TimeoutError:
                    return False
        return True

    def stop(self) -> None:
        """Cancel what runs and end the threads."""
        for future in tuple(self._running):
            future.cancel()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=STOP_SECONDS)
        self._writer.shutdown(wait=True)

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        while rest := asyncio.all_tasks(self._loop):  # again, as long as ending one has begun another
            for task in rest:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*rest, return_exceptions=True))
        self._loop.run_until_complete(asyncio.sleep(0.01))  # sockets are closed a round after their transports
        self._loop.close()

    def _release_connections(self) -> None:
        # An idle thread must not keep a connection for ever; a busy one must not open one for each result.
        if len(self._running) <= 1:
            connections.close_all()
        else:
            close_old_connections()


async def _logged(
    work: Callable[Params, Coroutine[Any, Any, None]], *args: Params.args, **kwargs: Params.kwargs
) -> None:
    try:
        await work(*args, **kwargs)
    except Exception:
        log.exception("a call to a node, or the writing of its result, failed")


_instance: Background | None = None
_lock = threading.Lock()


def background() -> Background:
    """The one of this process; a forked worker makes its own."""
    global _instance
    with _lock:
        if _instance is None or _instance.pid != os.getpid():
            _instance = Background()
        return _instance


@atexit.register
def stop_background() -> None:
    """End the background work of this process, if there is any. The next `background()` makes a new one."""
    global _instance
    with _lock:
        instance, _instance = _instance, None
    if instance is not None and instance.pid == os.getpid():
        instance.stop()
