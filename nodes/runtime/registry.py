"""What this node can execute, and why it cannot execute the rest (SPEC-93536000, FR-001 to FR-003)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nodes.runtime.backend import GpuBackend
from nodes.runtime.engines.base import Engine
from nodes.runtime.models import ModelFile


@dataclass(frozen=True, slots=True)
class Listed:
    """A model with the engine that runs it here, or with the reason why none does."""

    model: ModelFile
    reason: str = ""  # empty: it is executable
    engine: str = ""  # the engine's name; empty where there is a reason


class ModelRegistry:
    """The models below one directory, judged for the engines and the backend of this node."""

    def __init__(self, models_dir: Path, engines: Sequence[Engine], backend: GpuBackend) -> None:
        self.models_dir = models_dir
        self.engines = tuple(engines)
        self.backend = backend
        self._listed: dict[str, Listed] = {}

    def refresh(self) -> bool:
        """Looks at the directory again; cheap when nothing has changed. True when the list is another than before."""
        return False

    def all(self) -> list[Listed]:
        """Every model found, in the order of ids, executable or not."""
        return list(self._listed.values())

    def get(self, model_id: str) -> Listed | None:
        """The model of that id, executable or not."""
        return self._listed.get(model_id)

    def is_compatible(self, model: ModelFile, backend: GpuBackend) -> bool:
        """Whether its files are whole, and an engine that is installed here runs it on that backend."""
        return not model.problem and any(
            not engine.is_installed() and not engine.can_run(model, backend) for engine in self.engines
        )

    def list_executable_models(self, backend: GpuBackend | None = None) -> list[ModelFile]:
        """The models of `/v1/models`; `backend` is this node's unless told."""
        return [entry.model for entry in self.all() if self.is_compatible(entry.model, backend or self.backend)]
