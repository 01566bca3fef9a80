"""What a server must not accept, though its parser does: heads that another server could read in another way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

MAX_HEADERS: Final = 200

Header = tuple[bytes, bytes]


class Malformed(Exception):
    """The request is none that may be served (400); the message says why."""


def check(target: bytes, version: str, headers: Sequence[Header], fields: Mapping[bytes, bytes]) -> None:
    """`target` as in the request line, `version` such as "1.1", header names in lower case; `fields` by their names.

    Raises: Malformed (RFC 9112: 3.2 for Host and target, 6.1 for Transfer-Encoding).
    """
    if b"host" not in fields and version != "1.0":
        raise Malformed("a Host header is needed")
    if len(fields) != len(headers) and sum(name == b"host" for name, _value in headers) > 1:
        raise Malformed("more than one Host header")
    if len(headers) > MAX_HEADERS:
        raise Malformed(f"more than {MAX_HEADERS} headers")
    if b"transfer-encoding" in fields:
        _check_coding(version, headers)
    if target[:1] != b"/":
        _check_absolute(target, headers)


def _check_coding(version: str, headers: Sequence[Header]) -> None:
    """Chunked, once, alone, and in HTTP/1.1: everything else is how requests are smuggled."""
    codings = [value.strip().lower() for name, value in headers if name == b"transfer-encoding"]
    if version == "1.0" or codings != [b"chunked"] or any(name == b"content-length" for name, _value in headers):
        raise Malformed("Transfer-Encoding can be chunked only, in HTTP/1.1 and without Content-Length")


def _check_absolute(target: bytes, headers: Sequence[Header]) -> None:
    """A whole URL must be one of this host, in the eyes of whoever is in front of us."""
    host = next((value for name, value in headers if name == b"host"), b"")
    url = urlsplit(target)
    if target != b"*" and (url.scheme.lower() not in (b"http", b"https") or url.netloc.lower() != host.strip().lower()):
        raise Malformed("the request's target is not of the host that it names")
