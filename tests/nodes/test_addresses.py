"""Base URLs: one spelling each, and none that leads to a cloud's metadata service."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlb_site.lib.node_addresses import AddressRefused, BadBaseUrl, check_resolved, normalise_base_url


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://10.0.0.5:11434", "http://10.0.0.5:11434"),
        ("http://10.0.0.5:11434/", "http://10.0.0.5:11434"),
        ("http://10.0.0.5:11434/v1", "http://10.0.0.5:11434"),
        ("http://10.0.0.5:11434/v1/", "http://10.0.0.5:11434"),
        ("http://10.0.0.5:11434//v1//v1/", "http://10.0.0.5:11434"),
        ("  HTTP://GPU-Box.Example:80/v1 ", "http://gpu-box.example"),
        ("https://gpu.example:443", "https://gpu.example"),
        ("https://gpu.example:8443/openai/v1", "https://gpu.example:8443/openai"),
        ("http://gpu.example.", "http://gpu.example"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
        ("http://[0:0:0:0:0:0:0:1]:8080", "http://[::1]:8080"),
        ("http://2130706433:9000", "http://127.0.0.1:9000"),
        ("http://0x7f.1", "http://127.0.0.1"),
        ("http://0177.0.0.1", "http://127.0.0.1"),
        ("http://bücher.example", "http://xn--bcher-kva.example"),
        ("http://my_container:8000", "http://my_container:8000"),
    ],
)
def test_one_spelling(text: str, expected: str) -> None:
    assert normalise_base_url(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "gpu:8080",
        "ftp://gpu",
        "file:///etc/passwd",
        "http://",
        "http:///v1",
        "http://user@gpu",
        "http://user:secret@gpu",
        "http://gpu/?a=b",
        "http://gpu?",
        "http://gpu/#part",
        "http://gpu:0",
        "http://gpu:65536",
        "http://gpu:port",
        "http://g pu",
        "http://gpu\n.example",
        "http://gpu\\.example",
        "http://%31%36%39.254.169.254",
        "http://[::1",
        "http://gpu..example",
        "http://-gpu",
        "http://gpu/../etc",
        "http://" + "a" * 600,
    ],
)
def test_not_a_base_url(text: str) -> None:
    with pytest.raises(BadBaseUrl):
        normalise_base_url(text)


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "2852039166",
        "0xa9fea9fe",
        "0xA9.0xFE.0xA9.0xFE",
        "0251.0376.0251.0376",
        "169.254.43518",
        "169.254.169.254.",
        "１６９.254.169.254",
        "169。254。169。254",
        "[::ffff:169.254.169.254]",
        "[::ffff:a9fe:a9fe]",
        "[::169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:a9fe:a9fe::1]",
        "[fe80::1]",
        "[fe80::1%25eth0]",
        "[fd00:ec2::254]",
        "[FD00:0EC2:0:0:0:0:0:254]",
        "100.100.100.200",
        "metadata.google.internal",
        "Metadata.Google.Internal.",
        "0.0.0.0",
        "0",
        "[::]",
        "255.255.255.255",
        "224.0.0.1",
        "[ff02::1]",
    ],
)
def test_refused(host: str) -> None:
    with pytest.raises(AddressRefused):
        normalise_base_url(f"http://{host}:8080")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "10.1.2.3", "172.16.0.9", "192.168.1.5", "[::1]", "[fd12::5]", "8.8.8.8"]
)
def test_private_loopback_and_public_are_allowed(host: str) -> None:
    assert normalise_base_url(f"http://{host}:8080") == f"http://{host}:8080"


@given(st.integers(min_value=0, max_value=0xFFFF), st.sampled_from(["{}", "{:#x}", "0{:o}"]))
def test_no_link_local_address_in_any_number_base(low: int, form: str) -> None:
    with pytest.raises(AddressRefused):
        normalise_base_url("http://" + form.format(0xA9FE0000 + low))


@given(st.integers(min_value=0, max_value=0xFFFF))
def test_no_link_local_address_within_ipv6(low: int) -> None:
    for prefix in ("::ffff:", "64:ff9b::", "::"):
        address = ipaddress.IPv6Address(prefix + str(ipaddress.IPv4Address(0xA9FE0000 + low)))
        with pytest.raises(AddressRefused):
            normalise_base_url(f"http://[{address}]")


@given(st.text(max_size=60))
def test_any_text_is_normalised_once_or_refused(text: str) -> None:
    for candidate in (text, f"http://{text}", f"http://gpu/{text}"):
        try:
            once = normalise_base_url(candidate)
        except BadBaseUrl:
            continue
        assert normalise_base_url(once) == once
        assert not once.endswith(("/", "/v1"))


def test_a_name_that_resolves_to_metadata_is_refused() -> None:
    with pytest.raises(AddressRefused):
        check_resolved("http://innocent.example", lambda host, port: ["10.0.0.1", "169.254.169.254"])


def test_an_unknown_name_is_not_refused() -> None:
    def unknown(host: str, port: int) -> list[str]:
        raise OSError("unknown")

    check_resolved("http://nobody.example", unknown)
