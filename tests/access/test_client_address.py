"""Whose address counts: the socket's, unless a trusted proxy says otherwise."""

from __future__ import annotations

import ipaddress

import pytest

from llmlb_site.lib.addresses import client_address

PROXIES = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("192.0.2.1", "", "192.0.2.1"),
        ("192.0.2.1", "198.51.100.9", "192.0.2.1"),  # not a proxy of ours: anyone can send that
        ("10.0.0.1", "198.51.100.9", "198.51.100.9"),
        ("10.0.0.1", "1.1.1.1, 198.51.100.9", "198.51.100.9"),  # what the client itself wrote does not count
        ("10.0.0.1", "198.51.100.9, 10.0.0.2", "198.51.100.9"),
        ("10.0.0.1", "garbage", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.9, garbage", "10.0.0.1"),
        ("::ffff:10.0.0.1", "198.51.100.9", "198.51.100.9"),
        ("fd00::1%eth0", "2001:db8::2", "2001:db8::2"),
        ("", "198.51.100.9", ""),
    ],
)
def test_the_chain_is_read_from_the_right_as_far_as_it_is_ours(peer: str, forwarded: str, expected: str) -> None:
    assert client_address(peer, forwarded, PROXIES) == expected


def test_without_trusted_proxies_the_header_counts_for_nothing() -> None:
    assert client_address("10.0.0.1", "198.51.100.9", ()) == "10.0.0.1"
