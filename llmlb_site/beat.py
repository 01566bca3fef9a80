"""Celery beat of the scaled profile: as many as you like run, and one at a time ticks."""

from __future__ import annotations

from typing import Any, Final

from celery.beat import Scheduler
from django.conf import settings

from llmlb_site.lib.lease import Lease

LOOK_SECONDS: Final = 1.0


class LeasedScheduler(Scheduler):
    """Ticks while this process holds the lease; the others wait, and one of them takes over when it is gone.

    What is periodic is idempotent and due by a column in the database, so that a change of hands may tick twice.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._lease = Lease(settings.CELERY_BROKER_URL, "beat")
        super().__init__(*args, **kwargs)

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Seconds until the next look."""
        if not self._lease.held():
            return LOOK_SECONDS
        wait: float = super().tick(*args, **kwargs)
        return min(wait, LOOK_SECONDS)

    def close(self) -> None:
        super().close()
        self._lease.release()
        self._lease.close()
