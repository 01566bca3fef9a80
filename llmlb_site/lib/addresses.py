"""Whose request it is, as an address: the peer of the socket, or what a trusted proxy says of it."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from llmlb_site.lib.config import IPNetwork


def client_address(peer: str, forwarded_for: str, trusted: Sequence[IPNetwork]) -> str:
    """The client's address; the empty string if there is none (a Unix socket).

    `forwarded_for` is the `X-Forwarded-For` header. It is read from the right, and only as long as the hop that
    wrote it is in `trusted`: anyone may send that header, so by default it counts for nothing.
    """
    address = _normal(peer)
    for hop in reversed(forwarded_for.split(",")) if forwarded_for and trusted else ():
        if not _is_in(address, trusted) or not (earlier := _normal(hop.strip())):
            break
        address = earlier
    return address


def is_trusted(peer: str, trusted: Sequence[IPNetwork]) -> bool:
    """Whether the peer of the socket is a proxy whose word counts."""
    return _is_in(_normal(peer), trusted)


def _is_in(address: str, networks: Sequence[IPNetwork]) -> bool:
    return bool(address) and any(ipaddress.ip_address(address) in network for network in networks)


def _normal(text: str) -> str:
    """One spelling of each address: IPv4 within IPv6 as IPv4, no zone. The empty string if it is no address."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return ""
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
