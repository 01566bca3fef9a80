"""The broker of the embedded worker: kombu's queues in memory, but who waits for a message is woken by it.

kombu's own sleeps between two looks instead: either a task starts late, or an idle process is busy looking.
"""

from __future__ import annotations

import threading
from queue import Empty
from typing import Any, Final

from kombu.transport import memory
from kombu.utils.scheduling import FairCycle

_arrived: Final = threading.Event()


def wake() -> None:
    """End the waiting of the one thread that waits for messages, whether there are any or not."""
    _arrived.set()


class Channel(memory.Channel):
    def basic_publish(self, *args: Any, **kwargs: Any) -> Any:
        published = super().basic_publish(*args, **kwargs)
        wake()
        return published


class Transport(memory.Transport):
    """For a process in which one thread receives."""

    Channel = Channel
    cycle: FairCycle

    def drain_events(self, connection: Any, timeout: float | None = None, **kwargs: Any) -> None:
        """Deliver a message, or wait until there may be one.

        Raises:
            TimeoutError: nothing came within `timeout` seconds.
        """
        _arrived.clear()
        try:
            self.cycle.get(self._deliver, timeout=timeout)
        except Empty:
            if not _arrived.wait(timeout):
                raise TimeoutError from None
