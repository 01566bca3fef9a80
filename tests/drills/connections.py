"""A connection to each process of a gateway, whichever of them the kernel gives a new connection to."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.drills.clients import MESSAGES
from tests.drills.fleet import children
from tests.support.product import Product

MOST_TRIES: Final = 200
SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: Mapping[str, str]


class Connection:
    """One connection, which asks one thing after the other, and never opens another in its place."""

    def __init__(self, product: Product) -> None:
        self.product = product
        self._http = http.client.HTTPConnection(product.host, product.port, timeout=SECONDS)
        self._http.connect()
        self._http.auto_open = 0
        self.port: int = self._http.sock.getsockname()[1]

    def chat(self, model: str, *, key: str = "") -> Reply:
        """A chat with the product's key, if no other is given."""
        body = json.dumps({"model": model, "messages": MESSAGES})
        headers = {"Authorization": f"Bearer {key or self.product.key}", "Content-Type": "application/json"}
        return self._ask("POST", "/v1/chat/completions", body, headers)

    def is_alive(self) -> bool:
        return self._ask("GET", "/livez").status == 200

    def _ask(self, method: str, path: str, body: str | None = None, headers: Mapping[str, str] = {}) -> Reply:
        self._http.request(method, path, body, headers)
        answer = self._http.getresponse()
        answer.read()
        return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()})

    def close(self) -> None:
        self._http.close()


@contextmanager
def one_to_each_process(*products: Product) -> Iterator[list[Connection]]:
    """One connection to every process of these gateways."""
    with ExitStack() as stack:
        found: dict[int, Connection] = {}
        for product in products:
            for _ in range(MOST_TRIES):
                if found.keys() >= children(product):
                    break
                connection = stack.enter_context(closing(Connection(product)))
                assert connection.is_alive()  # by now it is accepted
                found.setdefault(_process_behind(connection), connection)
            assert found.keys() >= children(product), "the kernel gave no connection to some process"
        yield list(found.values())


def _process_behind(connection: Connection) -> int:
    """Which process of the product has the other end, as the kernel tells."""
    ends = f":{connection.product.port:04X}", f":{connection.port:04X}"
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()]
    (inode,) = [row[9] for row in rows if (row[1][-5:], row[2][-5:]) == ends]
    for pid in children(connection.product):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            if descriptor.is_symlink() and str(descriptor.readlink()) == f"socket:[{inode}]":
                return pid
    raise AssertionError("nobody has the connection's other end")
