"""`manage.py node serve`: listens until it is told to stop."""

from __future__ import annotations

import contextlib
import errno
import signal
import socket
import sys
from collections.abc import Generator
from typing import Final

import uvicorn

from llmlb_site.lib.signals import handled
from nodes.runtime.config import NodeConfig
from nodes.runtime.fetching.failures import FetchFailed
from nodes.runtime.fetching.origins import Origins
from nodes.runtime.fetching.pulls import Pulls
from nodes.runtime.fetching.routes import routes
from nodes.runtime.serving.app import NodeApp
from nodes.runtime.serving.logs import set_up
from nodes.runtime.serving.node import Node

# Longer than the 60 s after which nginx lets go of an idle connection: whoever is in front closes first.
KEEP_ALIVE_SECONDS: Final = 75
DRAIN_SECONDS: Final = 30


class CannotServe(Exception):
    """The node cannot start as it is configured; the message is one line for the operator."""


class NodeServer(uvicorn.Server):
    """Says where it listens once it does, and refuses to start with one line where it cannot."""

    def __init__(self, config: uvicorn.Config, node: Node) -> None:
        super().__init__(config)
        self._node = node

    async def startup(self, sockets: object = None) -> None:
        await super().startup(sockets=None)
        if self.started:
            print(_welcome(self._node), flush=True)  # noqa: T201  # to the terminal of who started it

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """As uvicorn's, but without raising the signal again at the end: a node that was asked to stop exits with 0."""
        with handled(self.handle_exit, signal.SIGINT, signal.SIGTERM):
            yield


def serve(config: NodeConfig) -> int:
    """Until SIGTERM or Ctrl-C. Returns the exit code. Raises: CannotServe."""
    if not config.models_dir.is_dir():
        raise CannotServe(f"LLM_RUNTIME_MODELS_DIR={config.models_dir}: there is no such directory.")
    node = Node(config, set_up(config.log_level))
    pulls = Pulls(config.models_dir, _origins(), arrived=node.look_soon)
    fetching = routes(pulls, node.registry, unload=node.pool.unload, changed=node.look_soon)
    _check_port(config)
    _warn_of_open_door(config)
    options = uvicorn.Config(
        NodeApp(node, fetching),
        host=config.host,
        port=config.port,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="on",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    NodeServer(options, node).run()
    pulls.close()
    return 0


def _origins() -> Origins:
    """Raises: CannotServe."""
    try:
        return Origins.from_environment()
    except FetchFailed as error:
        raise CannotServe(f"HF_BASE_URL, HF_TOKEN or LLM_RUNTIME_ALLOWED_ORIGINS: {error}.") from error


def _check_port(config: NodeConfig) -> None:
    """Raises: CannotServe, before anything is loaded."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        why = "is already in use by another program" if taken else f"cannot be listened on ({error.strerror})"
        raise CannotServe(f"{config.host}:{config.port} {why}. Set LLM_RUNTIME_HOST and LLM_RUNTIME_PORT.") from error


def _welcome(node: Node) -> str:
    config = node.config
    listed = node.listed()
    executable = sum(not entry.reason for entry in listed)
    where = f"http://{config.host}:{config.port}"
    lines = [f"Node ready at {where}, on {node.backend}: {executable} of {len(listed)} models executable."]
    lines += [f"  {entry.model.id}  ({entry.engine})" for entry in listed if not entry.reason]
    lines += [f"  {entry.model.id}  not executable: {entry.reason}" for entry in listed if entry.reason]
    return "\n".join(lines)


def _warn_of_open_door(config: NodeConfig) -> None:
    """Whoever reaches a node without a key can use it."""
    if not config.api_key and config.host not in ("127.0.0.1", "::1", "localhost"):
        print("Warning: LLM_RUNTIME_API_KEY is not set: whoever reaches this node can use it.", file=sys.stderr)  # noqa: T201
