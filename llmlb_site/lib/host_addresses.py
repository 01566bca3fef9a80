"""IP addresses where no node may be: link-local ones, in any spelling, and metadata services. Knows no Django."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Metadata services that are not link-local: AWS (IPv6), GCP (IPv6), Alibaba, Oracle, Azure's wire server.
_METADATA_ADDRESSES: Final = frozenset(
    ipaddress.ip_address(text)
    for text in ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "192.0.0.192", "168.63.129.16")
)
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_IPV4_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")
_THIS_NETWORK: Final = ipaddress.IPv4Network("0.0.0.0/8")
_BROADCAST: Final = ipaddress.IPv4Address("255.255.255.255")


def is_no_host(text: str) -> bool:
    """Whether no node may have this IP address. A name is none, and so no reason to refuse."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return any(_is_refused(candidate) for candidate in _meanings(address))


def _meanings(address: Address) -> Iterator[Address]:
    """The address, and the IPv4 addresses that an IPv6 address may carry."""
    yield address
    if isinstance(address, ipaddress.IPv4Address):
        return
    if address.ipv4_mapped:
        yield address.ipv4_mapped
    if address.sixtofour:
        yield address.sixtofour
    if address.teredo:
        yield from address.teredo
    if address in _NAT64 or (address in _IPV4_COMPATIBLE and not address.is_loopback):
        yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)


def _is_refused(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address) and (address in _THIS_NETWORK or address == _BROADCAST):
        return True
    return address.is_link_local or address.is_multicast or address.is_unspecified or address in _METADATA_ADDRESSES
