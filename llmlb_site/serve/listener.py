"""The listening sockets: bound early, so that a taken port is said before anything else is done; opened late."""

from __future__ import annotations

import errno
import resource
import socket
from typing import Final

BACKLOG: Final = 2048
OPEN_FILES: Final = 65536
WILDCARDS: Final = frozenset({"", "0.0.0.0", "::", "*"})  # noqa: S104  # recognised, not chosen


class CannotListen(Exception):
    """The address cannot be used; the message is one line for the operator."""


def bind(host: str, port: int, *, shared: bool = False) -> list[socket.socket]:
    """Sockets bound to every address of `host`, not yet listening: connections are refused until a server opens.

    `shared`: others of this user may bind to the same (SO_REUSEPORT); the kernel shares connections out among them.

    Raises:
        CannotListen
    """
    sockets: list[socket.socket] = []
    try:
        for family, address in _addresses(host, port):
            sockets.append(_bound(family, address, shared=shared))
    except OSError as error:
        for opened in sockets:
            opened.close()
        raise CannotListen(_reason(error, host, port)) from error
    return sockets


def drop_vanished(sockets: list[socket.socket], seconds: float) -> None:
    """Have the kernel end connections whose other side is gone, or takes nothing at all, for so long.

    Connections inherit this from the socket that they came in on. Other systems than Linux have their own time-outs.
    """
    for listening in sockets:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(seconds * 1000))
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, round(seconds)))
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, round(seconds / 3)))


def raise_file_limit() -> None:
    """As many open files as the system lets this user have, up to `OPEN_FILES`: each connection is two of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def base_url(host: str, port: int) -> str:
    """The URL that a person on this machine opens."""
    shown = "localhost" if host in WILDCARDS else host
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[object, ...]]]:
    wanted = None if host in {"", "*"} else host
    found = socket.getaddrinfo(wanted, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _bound(family: socket.AddressFamily, address: tuple[object, ...], *, shared: bool) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
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
