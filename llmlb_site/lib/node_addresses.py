"""Which base URLs a node may have: one spelling for each, and none that leads to a cloud's metadata service.

Private and loopback addresses are where inference servers live, so they are allowed. Link-local ones are where
clouds hand out credentials: refused in every spelling, and also when a name resolves to one.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable
from typing import Final
from urllib.parse import SplitResult, urlsplit

from django.utils.translation import gettext as _

from llmlb_site.lib.host_addresses import is_no_host

Resolver = Callable[[str, int], list[str]]

MAX_LENGTH: Final = 500
DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_NAME: Final = re.compile(r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_VERSION_SUFFIX: Final = re.compile(r"(/+|/v1)\Z", re.IGNORECASE)

_METADATA_NAMES: Final = frozenset(
    {"metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal"}
)


class BadBaseUrl(ValueError):
    """The text is no base URL that a node may have. The message is for the person who typed it."""


class AddressRefused(BadBaseUrl):
    """The URL is well-formed and leads where no node may be."""


def normalise_base_url(text: str) -> str:
    """The one spelling of a node's base URL, such as `http://10.0.0.5:11434`: no trailing slash, no `/v1`.

    Raises:
        BadBaseUrl: not http(s), or with credentials, a query or a fragment, or not a URL at all.
        AddressRefused: it names an address or host that is refused without asking the DNS.
    """
    parts = _split(text.strip())
    host = _normal_host(parts.hostname or "")
    port = _port(parts)
    _refuse_host(host)
    location = f"[{host}]" if ":" in host else host
    if port is not None and port != DEFAULT_PORTS[parts.scheme]:
        location = f"{location}:{port}"
    return f"{parts.scheme}://{location}{_trimmed(parts.path)}"


def check_resolved(base_url: str, resolve: Resolver | None = None) -> None:
    """Ask the DNS for the host of a normalised URL. A name that is not known is no reason to refuse.

    Raises:
        AddressRefused: one of its addresses is refused.
    """
    parts = urlsplit(base_url)
    try:
        found = (resolve or resolve_name)(parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme])
    except OSError:
        return
    for address in found:
        refuse_address(address)


def resolve_name(host: str, port: int) -> list[str]:
    """Every address of a host. Raises: OSError."""
    answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


def refuse_address(text: str) -> None:
    """Raises: AddressRefused, if no node may have this IP address."""
    if is_no_host(text):
        raise AddressRefused(_("This address is link-local, a cloud's metadata service, or not an address of a host."))


def _split(text: str) -> SplitResult:
    if len(text) > MAX_LENGTH or not text.isprintable() or re.search(r"[\s\\]", text):
        raise BadBaseUrl(_("This is not a URL."))
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise BadBaseUrl(_("This is not a URL.")) from error
    if parts.scheme not in DEFAULT_PORTS:
        raise BadBaseUrl(_("The URL must begin with http:// or https://."))
    if "@" in parts.netloc:
        raise BadBaseUrl(_("The URL must not hold credentials: give the key in its own field."))
    if "?" in text or "#" in text:
        raise BadBaseUrl(_("The URL must not have a query or a fragment."))
    if ".." in parts.path.split("/"):
        raise BadBaseUrl(_("This is not a URL."))
    return parts


def _port(parts: SplitResult) -> int | None:
    try:
        port = parts.port
    except ValueError as error:
        raise BadBaseUrl(_("The port must be from 1 to 65535.")) from error
    if port == 0:
        raise BadBaseUrl(_("The port must be from 1 to 65535."))
    return port


def _normal_host(host: str) -> str:
    """Lower case, ASCII, without the root's dot; an IP address in its usual spelling."""
    if not host.isascii():
        host = _to_ascii(host)
    host = host.lower().removesuffix(".")
    if ":" in host:
        return _normal_ipv6(host)
    if not _NAME.fullmatch(host):
        raise BadBaseUrl(_("The URL has no valid host name."))
    return _dotted_quad(host) or host


def _to_ascii(host: str) -> str:
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise BadBaseUrl(_("The URL has no valid host name.")) from error


def _normal_ipv6(host: str) -> str:
    try:
        address = ipaddress.IPv6Address(host)
    except ValueError as error:
        raise BadBaseUrl(_("The URL has no valid host name.")) from error
    if address.scope_id is not None:
        raise AddressRefused(_("This address is link-local, a cloud's metadata service, or not an address of a host."))
    return address.compressed


def _dotted_quad(host: str) -> str | None:
    """An IPv4 address in any spelling that a resolver takes (`0x7f.1`, `2130706433`, `0177.0.0.1`), as four numbers."""
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return None


def _trimmed(path: str) -> str:
    """The path without trailing slashes and `/v1`, however often they come."""
    while (shorter := _VERSION_SUFFIX.sub("", path)) != path:
        path = shorter
    return path


def _refuse_host(host: str) -> None:
    if host in _METADATA_NAMES:
        raise AddressRefused(_("This host is a cloud's metadata service."))
    refuse_address(host)
