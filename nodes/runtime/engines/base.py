"""The seam between the node and an engine: can it, is it here, and how is it started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from nodes.runtime.backend import GpuBackend
from nodes.runtime.models import ModelFile


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start an engine for one model, and how to see that it is ready."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)  # added to the node's own environment
    ready_path: str = "/health"  # answers 200 on the engine's port once the model is loaded


class Engine(Protocol):
    """One inference program. Reasons are for people, in plain words; an empty reason is a yes."""

    name: str
    paths: frozenset[str]  # the /v1 paths that it serves, e.g. "/v1/chat/completions"

    def is_installed(self) -> str:
        """Why it cannot be started on this machine, such as "llama-server is not on the path"."""
        ...

    def can_run(self, model: ModelFile, backend: GpuBackend) -> str:
        """Why it cannot run this model's format and architecture on this backend."""
        ...

    def command(self, model: ModelFile, port: int) -> Launch:
        """The process that serves this model on 127.0.0.1:`port`."""
        ...
