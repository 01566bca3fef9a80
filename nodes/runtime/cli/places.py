"""Where models are: at a running node, or in a directory without one. The commands that work on both ask here.

With `--models` it is that directory. Otherwise it is the running node, and LLM_RUNTIME_MODELS_DIR where none runs.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import quote

from nodes.runtime.cli.failures import CommandFailed, NotReachable
from nodes.runtime.cli.talking import NodeClient
from nodes.runtime.config import NodeConfig, read_config

if TYPE_CHECKING:
    from nodes.runtime.registry import Listed, ModelRegistry

Told = Callable[[dict[str, Any]], None]
LOOK_SECONDS: Final = 0.5
OVER: Final = frozenset({"success", "failed", "cancelled"})


class Place(Protocol):
    """All raise CommandFailed."""

    def models(self) -> list[dict[str, Any]]:
        """Every model, as `/api/models` tells it."""
        ...

    def pull(self, wish: dict[str, Any], told: Told) -> dict[str, Any]:
        """Fetch a model; `told` gets each look at it. Returns: the last one."""
        ...

    def remove(self, model_id: str) -> int:
        """Delete a model. Returns: bytes freed."""
        ...


def add_node_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", help="the node's address (LLM_RUNTIME_HOST)")
    parser.add_argument("--port", type=int, help="the node's port (LLM_RUNTIME_PORT)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_node_arguments(parser)
    parser.add_argument("--models", type=Path, help="work on this directory, without a node")
    parser.add_argument("--json", action="store_true", dest="as_json", help="for scripts")


def node_of(options: argparse.Namespace) -> NodeClient:
    """The node that is meant, running or not. Raises: BadSetting."""
    config = read_config()
    return NodeClient(options.host or config.host, options.port or config.port, config.api_key)


def place_of(options: argparse.Namespace) -> Place:
    """Raises: NotReachable, where a node was named that is not there."""
    config = read_config()
    if options.models is not None:
        return Directory(options.models.expanduser().absolute(), config)
    node = node_of(options)
    if node.answers():
        return AtNode(node)
    if options.host or options.port:
        raise NotReachable(f"no node answers at {node.address}; `manage.py node serve` starts one")
    return Directory(config.models_dir, config)


def known(models: list[dict[str, Any]], model_id: str) -> dict[str, Any]:
    """Raises: CommandFailed."""
    for model in models:
        if model["id"] == model_id.lower():
            return model
    raise CommandFailed(f"there is no model {model_id!r}; `manage.py node list` shows what there is")


class AtNode:
    """At a running node, over HTTP."""

    def __init__(self, node: NodeClient) -> None:
        self._node = node

    def models(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._node.ask("GET", "/api/models")["models"]
        return found

    def pull(self, wish: dict[str, Any], told: Told) -> dict[str, Any]:
        look = self._node.ask("POST", "/api/pulls", wish)
        try:
            while look["status"] not in OVER:
                told(look)
                time.sleep(LOOK_SECONDS)
                look = self._node.ask("GET", f"/api/pulls/{look['task_id']}")
        except KeyboardInterrupt:
            self._node.ask("DELETE", f"/api/pulls/{look['task_id']}")
            raise
        return dict(look)

    def remove(self, model_id: str) -> int:
        model = known(self.models(), model_id)
        return int(self._node.ask("DELETE", f"/api/models/{quote(model['id'])}")["freed_bytes"])


class Directory:
    """In a directory, by this process itself."""

    def __init__(self, path: Path, config: NodeConfig) -> None:
        self._path = path
        self._config = config
        logging.getLogger("llmlb").addHandler(logging.NullHandler())  # what goes wrong is said once, by the command

    def models(self) -> list[dict[str, Any]]:
        return [described(entry) for entry in self._registry().all()]

    def pull(self, wish: dict[str, Any], told: Told) -> dict[str, Any]:
        # Here alone: the HTTP client that it needs takes longer to import than the other commands take in all.
        from nodes.runtime.fetching.failures import FetchFailed
        from nodes.runtime.fetching.origins import Origins
        from nodes.runtime.fetching.pulls import Pulls
        from nodes.runtime.fetching.sources import Wish

        try:
            self._path.mkdir(parents=True, exist_ok=True)
            pull = Pulls(self._path, Origins.from_environment()).start(Wish(**wish))
        except (FetchFailed, OSError) as error:
            raise CommandFailed(str(error)) from error
        try:
            while not pull.wait(LOOK_SECONDS):
                told(pull.progress.as_json())
        except KeyboardInterrupt:
            pull.cancel()
            pull.wait(LOOK_SECONDS)
            raise
        return pull.progress.as_json()

    def remove(self, model_id: str) -> int:
        from nodes.runtime.fetching.failures import FetchFailed
        from nodes.runtime.fetching.removal import delete_model

        registry = self._registry()
        found = registry.get(known([described(entry) for entry in registry.all()], model_id)["id"])
        assert found is not None
        try:
            return delete_model(found.model, self._path)
        except FetchFailed as error:
            raise CommandFailed(str(error)) from error

    def _registry(self) -> ModelRegistry:
        from nodes.runtime.backend import GpuDetector
        from nodes.runtime.engines.catalogue import ENGINES
        from nodes.runtime.registry import ModelRegistry

        backend = GpuDetector(self._config.gpu_backend).get_gpu_backend()
        registry = ModelRegistry(self._path, ENGINES, backend, require_gpu=self._config.require_gpu, settle=0)
        registry.refresh()
        if registry.problem:
            raise CommandFailed(f"{registry.problem}: {self._path}")
        return registry


def described(entry: Listed) -> dict[str, Any]:
    """A model as `/api/models` tells it, without the state that only a node has."""
    fields = asdict(entry.model)
    told = ("format", "architectures", "size_bytes", "quantization", "context_length")
    more = ("has_chat_template", "tensor_count", "expert_count")
    return {
        "id": entry.model.id,
        "executable": not entry.reason,
        "reason": entry.reason,
        "engine": entry.engine,
        **{name: fields[name] for name in (*told, *more)},
    }
