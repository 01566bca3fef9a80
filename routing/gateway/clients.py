"""Who is at the other end of a request."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final

from llmlb_site.lib.addresses import client_address
from llmlb_site.lib.config import IPNetwork
from routing.gateway.exchange import Scope

_PASSED_ON: Final = frozenset({b"x-forwarded-for", b"forwarded", b"x-real-ip"})


def client_ip(scope: Scope, trusted: Sequence[IPNetwork]) -> str:
    """The client's address, as far as it can be trusted; empty for a Unix socket."""
    if not trusted:
        return _peer(scope)
    forwarded = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
    return client_address(_peer(scope), forwarded.decode("latin-1"), trusted)


def is_local(scope: Scope) -> bool:
    """The peer is this machine itself, and does not pass on somebody else's request."""
    if any(name in _PASSED_ON for name, _ in scope["headers"]):
        return False
    try:
        return ipaddress.ip_address(_peer(scope)).is_loopback
    except ValueError:
        return False


def _peer(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else ""
