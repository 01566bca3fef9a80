"""Who is at the other end: the peer, or whom a trusted proxy says it speaks for."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from llmlb_site.lib.config import IPNetwork
from routing.gateway.exchange import Scope


def client_ip(scope: Scope, trusted: Sequence[IPNetwork]) -> str:
    """The client's address. `X-Forwarded-For` counts only as far as trusted proxies wrote it, from the right."""
    peer = (scope.get("client") or ("", 0))[0]
    if not trusted or not _is_trusted(peer, trusted):
        return peer
    forwarded = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
    hops = [hop.strip() for hop in forwarded.decode("latin-1").split(",") if hop.strip()]
    address = peer
    for hop in reversed(hops):
        if not _is_address(hop):
            break
        address = hop
        if not _is_trusted(hop, trusted):
            break
    return address


def is_local(scope: Scope) -> bool:
    """The peer is this machine itself, and does not pass on somebody else's request."""
    passed_on = {b"x-forwarded-for", b"forwarded", b"x-real-ip"}
    if any(name in passed_on for name, _ in scope["headers"]):
        return False
    peer = (scope.get("client") or ("", 0))[0]
    return _is_address(peer) and ipaddress.ip_address(peer).is_loopback


def _is_trusted(address: str, trusted: Sequence[IPNetwork]) -> bool:
    if not _is_address(address):
        return False
    parsed = ipaddress.ip_address(address)
    return any(parsed in network for network in trusted)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
