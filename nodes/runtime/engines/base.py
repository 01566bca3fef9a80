"""The seam between the node and an engine: can it, is it here, and how is it started."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final, Protocol

from nodes.runtime.backend import GpuBackend
from nodes.runtime.models import ModelFile, ModelFormat, Task

ROOT: Final = Path(__file__).resolve().parents[3]


@dataclass(frozen=True, slots=True)
class Setup:
    """What of the node's settings an engine must know. `context` is tokens a request; 0 is the model's own.

    `threads` are for computing on the processor; 0 leaves that to the engine.
    """

    backend: GpuBackend = GpuBackend.CPU
    parallel: int = 1
    context: int = 0
    threads: int = 0


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start an engine for one model, and how to see that it is ready."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)  # added to the node's own environment
    ready_path: str = "/health"  # answers 200 on the engine's port once the model is loaded
    model_name: str = ""  # what requests to it must call the model; empty: the model's id


class Engine(Protocol):
    """One inference program. Reasons are for people, in plain words; an empty reason is a yes."""

    name: str
    formats: frozenset[ModelFormat]  # what it reads at all
    tasks: frozenset[Task]  # and for what: of other formats and tasks it is not asked
    paths: frozenset[str]  # every /v1 path that it serves for one kind of model or another

    def is_installed(self) -> str:
        """Why it cannot be started on this machine, such as "llama-server is not on the path"."""
        ...

    def can_run(self, model: ModelFile, backend: GpuBackend) -> str:
        """Why it cannot run this model's format and architecture on this backend."""
        ...

    def paths_for(self, model: ModelFile) -> frozenset[str]:
        """The paths that it serves with this model loaded."""
        ...

    def command(self, model: ModelFile, port: int, setup: Setup) -> Launch:
        """The process that serves this model on 127.0.0.1:`port`."""
        ...


@cache
def has_module(name: str) -> bool:
    """Whether a Python package is installed beside the node. What is installed later is seen after a restart."""
    return importlib.util.find_spec(name) is not None


def missing_modules(*names: str) -> str:
    """The reason for an engine of which some packages are not installed."""
    missing = [name for name in names if not has_module(name)]
    return f"the Python package {' and '.join(missing)} is not installed" if missing else ""


def own_server(module: str, *arguments: str) -> Launch:
    """One of our own small servers (engines/own/), run by this very Python."""
    argv = (sys.executable, "-m", f"nodes.runtime.engines.own.{module}", *arguments)
    return Launch(argv, {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"})


def find_program(name: str) -> str | None:
    """Where a program is: on the path, or installed with the Python that runs the node."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


def foreign_program(program: str, *arguments: str) -> Launch:
    """A program of others, with a guard of ours that ends it when the node is gone (engines/own/guard.py)."""
    return own_server("guard", "--", program, *arguments)


def context_tokens(model: ModelFile, setup: Setup) -> int:
    """The context to give the engine, in tokens: the setting's, but no more than the model has; 0 leaves it to it."""
    if setup.context and model.context_length:
        return min(setup.context, model.context_length)
    return setup.context


def why_not_architecture(model: ModelFile, known: frozenset[str], engine: str) -> str:
    """The reason where an engine's table has none of the model's architectures."""
    if not model.architectures:
        return "its architecture is not known"
    if not known.intersection(model.architectures):
        return f"{engine} does not know the architecture {' or '.join(model.architectures)}"
    return ""
