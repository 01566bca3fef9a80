"""The listening sockets: bound early, so that a taken port is said before anything else is done; opened late."""

from __future__ import annotations

import errno
import socket
from typing import Final

BACKLOG: Final = 2048
WILDCARDS: Final = frozenset({"", "0.0.0.0", "::", "*"})  # noqa: S104  # recognised, not chosen


class CannotListen(Exception):
    """The address cannot be used; the message is one line for the operator."""


def bind(host: str, port: int) -> list[socket.socket]:
    """Sockets bound to every address of `host`, not yet listening: connections are refused until a server opens.

    Raises:
        CannotListen
    """
    sockets: list[socket.socket] = []
    try:
        for family, address in _addresses(host, port):
            sockets.append(_bound(family, address))
    except OSError as error:
        for opened in sockets:
            opened.close()
        raise CannotListen(_reason(error, host, port)) from error
    return sockets


def base_url(host: str, port: int) -> str:
    """The URL that a person on this machine opens."""
    shown = "localhost" if host in WILDCARDS else host
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[object, ...]]]:
    wanted = None if host in {"", "*"} else host
    found = socket.getaddrinfo(wanted, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _bound(family: socket.AddressFamily, address: tuple[object, ...]) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.setblocking(False)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


def _reason(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} on {host or 'all addresses'} is already in use by another program. Set LLMLB_PORT or --port."
        )
    if error.errno == errno.EACCES:
        return f"port {port} needs more rights than this user has. Set LLMLB_PORT or --port to 1024 or more."
    return f"cannot listen on {host}:{port}: {error.strerror or error}. Set LLMLB_HOST or --host."
