"""Celery beat by the monotonic clock. In the scaled profile as many as you like run, and one of them ticks."""

from __future__ import annotations

import logging
import time
from typing import Any, Final

import redis
from celery.beat import ScheduleEntry, Scheduler, SchedulingError
from django.conf import settings

from llmlb_site.lib.lease import Lease

log = logging.getLogger("llmlb.beat")

LOOK_SECONDS: Final = 1.0
# More says nothing that those before it did not say, and would fill Redis for as long as no worker comes.
MOST_WAITING: Final = 1000


class SteadyEntry(ScheduleEntry):
    """Due so many seconds after it was last sent. `last_run_at` is in seconds of the monotonic clock."""

    schedule: Any
    last_run_at: Any

    @property
    def every(self) -> float:
        """Seconds from one time to the next."""
        return float(self.schedule.seconds)

    def default_now(self) -> Any:
        return time.monotonic()

    def is_due(self) -> tuple[bool, float]:
        """Whether it is due, and the seconds until the next look."""
        left: float = self.last_run_at + self.every - time.monotonic()
        return (True, self.every) if left <= 0 else (False, left)


class SteadyScheduler(Scheduler):
    """Celery's own goes by the wall clock: set back by an hour, it ticks again in an hour. This one does not notice.

    It also costs a tenth: Celery's converts time zones at each look, and looks without a pause in the last 10 ms.
    """

    Entry = SteadyEntry

    def adjust(self, n: Any, drift: float = 0.0) -> Any:
        """Celery's looks 10 ms early, again and again."""
        return n

    def _when(self, entry: Any, next_time_to_run: float, mktime: Any = None) -> float:
        """The moment that is so many seconds from now, as the heap sorts by it."""
        return time.monotonic() + next_time_to_run

    def schedules_equal(self, *schedules: Any) -> bool:
        """Ours never changes."""
        return True


class LeasedScheduler(SteadyScheduler):
    """Ticks while this process holds the lease; the others wait, and one of them takes over when it is gone.

    What is periodic is idempotent and due by a column in the database, so that a change of hands may tick twice.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._lease = Lease(settings.CELERY_BROKER_URL, "beat")
        self._redis: Any = redis.Redis.from_url(settings.CELERY_BROKER_URL, socket_timeout=2, socket_connect_timeout=2)
        self._trouble = False
        super().__init__(*args, **kwargs)

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Seconds until the next look."""
        if not self._lease.held():
            return LOOK_SECONDS
        wait: float = super().tick(*args, **kwargs)
        return min(wait, LOOK_SECONDS)

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Send what is due. While that cannot be done, say so once: Celery's own writes two stacks each time."""
        try:
            if self._waiting() < MOST_WAITING:
                self.apply_async(entry, producer=producer, advance=False)
                self._trouble = False
            else:
                self._say_once("%d tasks wait, and no worker takes them: none is added", MOST_WAITING)
        except (SchedulingError, redis.RedisError) as error:
            self._say_once("Redis does not take what is due: %s", error)

    def _waiting(self) -> int:
        """Tasks that no worker has taken."""
        prefix = settings.CELERY_BROKER_TRANSPORT_OPTIONS["global_keyprefix"]
        return int(self._redis.llen(f"{prefix}{settings.CELERY_TASK_DEFAULT_QUEUE}"))

    def _say_once(self, text: str, *values: Any) -> None:
        if not self._trouble:
            log.warning(text, *values)
        self._trouble = True

    def close(self) -> None:
        super().close()
        self._lease.release()
        self._lease.close()
        self._redis.close()
