"""Who is at the other end of a request."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import Final

from llmlb_site.lib.addresses import client_address
from llmlb_site.lib.config import IPNetwork
from routing.gateway.exchange import Scope

_PORT: Final = re.compile(r":\d*$")
_PASSED_ON: Final = frozenset({b"x-forwarded-for", b"forwarded", b"x-real-ip"})


def client_ip(scope: Scope, trusted: Sequence[IPNetwork]) -> str:
    """The client's address, as far as it can be trusted; empty for a Unix socket."""
    client = scope.get("client")
    peer: str = client[0] if client else ""
    if not trusted:
        return peer
    forwarded = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
    return client_address(peer, forwarded.decode("latin-1"), trusted)


def is_local(scope: Scope) -> bool:
    """The peer is this machine itself, and passes on nobody else's request.

    It also calls us by a name of this machine: a web page whose own name leads to loopback (DNS rebinding) does not.
    """
    headers = scope["headers"]
    if any(name in _PASSED_ON for name, _ in headers):
        return False
    host = next((value for name, value in headers if name == b"host"), b"").decode("latin-1")
    return _is_loopback(client_ip(scope, ())) and _is_loopback(_PORT.sub("", host).strip("[]"))


def _is_loopback(name: str) -> bool:
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
