"""One request as people see it: its bodies masked, or revealed to an administrator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from history.masking import masked, pretty, readable
from history.models import RequestRecord
from history.payloads import Bodies
from history.services import bodies_of
from history.streams import said
from llmlb_site.lib.crypto import DecryptionError


@dataclass(frozen=True, slots=True)
class BodiesView:
    """Both bodies as JSON values. `is_readable` False: they were stored under another secret key."""

    request: Any
    response: Any
    is_masked: bool
    is_readable: bool = True
    request_truncated: bool = False
    response_truncated: bool = False

    @property
    def request_text(self) -> str:
        return pretty(self.request)

    @property
    def response_text(self) -> str:
        return pretty(self.response)

    @property
    def answer(self) -> str:
        """What the model said, as it was meant to be read; empty while masked."""
        return "" if self.is_masked else said(self.response)

    @property
    def is_kept(self) -> bool:
        """Whether there is anything to see, or to reveal."""
        return self.request is not None or self.response is not None


def masked_view(record: RequestRecord) -> BodiesView:
    """What everyone sees who may read the history."""
    try:
        bodies = bodies_of(record)
    except DecryptionError:
        return BodiesView(None, None, is_masked=True, is_readable=False)
    return BodiesView(masked(bodies.request), masked(bodies.response), True, True, *_cuts(record))


def revealed_view(record: RequestRecord, bodies: Bodies) -> BodiesView:
    """What `services.reveal_payload` gave."""
    return BodiesView(readable(bodies.request), readable(bodies.response), False, True, *_cuts(record))


def _cuts(record: RequestRecord) -> tuple[bool, bool]:
    payload = getattr(record, "payload", None)
    return (payload.request_truncated, payload.response_truncated) if payload else (False, False)
