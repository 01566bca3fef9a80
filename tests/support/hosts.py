"""Several hosts on one machine: network namespaces behind a bridge. Needs root and Linux."""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

START_SECONDS: Final = 10


class Network:
    """A bridge that the hosts hang on. `address(1)`, `(2)` … are this machine's own addresses there."""

    def __init__(self) -> None:
        self.name = f"llmlb{secrets.token_hex(3)}"
        self._prefix = f"10.{secrets.randbelow(100) + 100}.{secrets.randbelow(250)}"
        self._hosts: list[Host] = []

    @staticmethod
    def why_not() -> str:
        """Why this machine cannot; empty if it can."""
        if os.geteuid() != 0 or shutil.which("ip") is None:
            return "network namespaces need root and `ip`"
        name = f"llmlb{secrets.token_hex(3)}"
        made = subprocess.run(["ip", "link", "add", name, "type", "bridge"], capture_output=True, check=False)
        ip("link", "del", name, check=False)
        return "" if made.returncode == 0 else f"no bridge can be made here: {made.stderr.decode().strip()}"

    def address(self, number: int) -> str:
        return f"{self._prefix}.{number}"

    def __enter__(self) -> Network:
        ip("link", "add", self.name, "type", "bridge")
        for number in (1, 2):
            ip("addr", "add", f"{self.address(number)}/24", "dev", self.name)
        ip("link", "set", self.name, "up")
        return self

    def __exit__(self, *args: object) -> None:
        for host in self._hosts:
            ip("netns", "del", host.name, check=False)
        ip("link", "del", self.name, check=False)

    def add_host(self) -> Host:
        host = Host(self, len(self._hosts) + 1)
        self._hosts.append(host)
        return host


class Host:
    """A host of its own: its own address, its own ports, its own loopback."""

    def __init__(self, network: Network, number: int) -> None:
        self.name = f"{network.name}-{number}"
        self.address = network.address(10 + number)
        self._network = network
        self._inside, self._outside = f"{network.name}i{number}", f"{network.name}o{number}"
        self.prefix = ("ip", "netns", "exec", self.name)
        inside, outside = self._inside, self._outside
        ip("netns", "add", self.name)
        ip("link", "add", outside, "type", "veth", "peer", "name", inside, "netns", self.name)
        ip("link", "set", outside, "master", network.name, "up")
        for command in (
            ("addr", "add", f"{self.address}/24", "dev", inside),
            ("link", "set", inside, "up"),
            ("link", "set", "lo", "up"),
        ):
            ip("-n", self.name, *command)

    @contextlib.contextmanager
    def cut_off_from(self, address: str) -> Iterator[None]:
        """What is sent there vanishes."""
        ip("-n", self.name, "route", "add", "blackhole", f"{address}/32")
        try:
            yield
        finally:
            ip("-n", self.name, "route", "del", "blackhole", f"{address}/32")

    def unplug(self, address: str) -> None:
        """Whatever is sent there, and comes from there, is lost on the way, and nobody says so."""
        bridge = Path(f"/sys/class/net/{self._network.name}/address").read_text().strip()
        # Or the system itself would find out that nobody has this address.
        ip("-n", self.name, "neigh", "replace", address, "lladdr", bridge, "nud", "permanent", "dev", self._inside)
        ip("link", "set", self._outside, "nomaster")


@contextlib.contextmanager
def forwarded(address: str, to: tuple[str, int]) -> Iterator[int]:
    """A port on this address that leads to another one: for a server that listens on loopback alone."""
    listener = socket.create_server((address, 0), backlog=100)
    threading.Thread(target=_forward_all, args=(listener, to), daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def _forward_all(listener: socket.socket, to: tuple[str, int]) -> None:
    with contextlib.suppress(OSError):
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_forward, args=(client, socket.create_connection(to)), daemon=True).start()


def _forward(client: socket.socket, server: socket.socket) -> None:
    with client, server, selectors.DefaultSelector() as selector, contextlib.suppress(OSError):
        selector.register(client, selectors.EVENT_READ, server)
        selector.register(server, selectors.EVENT_READ, client)
        while True:
            for key, _ in selector.select():
                assert isinstance(key.fileobj, socket.socket)
                said = key.fileobj.recv(65536)
                if not said:
                    return
                key.data.sendall(said)


def ip(*arguments: str, check: bool = True) -> None:
    subprocess.run(["ip", *arguments], check=check, capture_output=True, timeout=START_SECONDS)
