"""What this node can execute, and why it cannot execute the rest (SPEC-93536000, FR-001 to FR-003)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nodes.runtime.backend import GpuBackend
from nodes.runtime.engines.base import Engine
from nodes.runtime.files.reading import reason_of
from nodes.runtime.files.scan import SETTLE, Scanner
from nodes.runtime.models import ModelFile

log = logging.getLogger("llmlb.node.models")

NO_GPU: Final = "this node has no GPU, and LLM_RUNTIME_REQUIRE_GPU says not to serve without one"


@dataclass(frozen=True, slots=True)
class Listed:
    """A model with the engine that runs it here, or with the reason why none does."""

    model: ModelFile
    reason: str = ""  # empty: it is executable
    engine: str = ""  # the engine's name; empty where there is a reason


class ModelRegistry:
    """The models below one directory, judged for the engines and the backend of this node.

    Lists may be read from any thread while another refreshes; the refresher swaps them as a whole.
    """

    def __init__(
        self,
        models_dir: Path,
        engines: Sequence[Engine],
        backend: GpuBackend,
        *,
        require_gpu: bool = False,
        settle: float = SETTLE,
    ) -> None:
        self.models_dir = models_dir
        self.engines = tuple(engines)
        self.backend = backend
        self.require_gpu = require_gpu
        self.problem = ""  # why the directory as a whole cannot be read
        self._scanner = Scanner(models_dir, settle=settle)
        self._listed: tuple[Listed, ...] = ()
        self._refreshing = threading.Lock()

    def refresh(self) -> bool:
        """Looks at the directory again; cheap when nothing has changed. True when the list is another than before.

        A directory that is not there, or not any more, has no models; `problem` says so.
        """
        with self._refreshing:
            try:
                found, problem = self._scanner.scan(), ""
            except OSError as error:
                found, problem = [], f"the models directory cannot be read: {reason_of(error)}"
            listed = tuple(self.judge(model, self.backend) for model in found)
            if problem and problem != self.problem:
                log.error("%s: %s", problem, self.models_dir)
            self.problem = problem
            if listed == self._listed:
                return False
            self._tell(listed)
            self._listed = listed
            return True

    def all(self) -> list[Listed]:
        """Every model found, in the order of ids, executable or not."""
        return list(self._listed)

    def get(self, model_id: str) -> Listed | None:
        """The model of that id; of several with one id the one that is executable."""
        return min(
            (entry for entry in self._listed if entry.model.id == model_id),
            key=lambda entry: bool(entry.reason),
            default=None,
        )

    def is_compatible(self, model: ModelFile, backend: GpuBackend) -> bool:
        """Whether its files are whole, and an engine that is installed here runs it on that backend."""
        return not self.judge(model, backend).reason

    def list_executable_models(self, backend: GpuBackend | None = None) -> list[ModelFile]:
        """The models of `/v1/models`; `backend` is this node's unless told."""
        return [entry.model for entry in self._listed if self.is_compatible(entry.model, backend or self.backend)]

    def judge(self, model: ModelFile, backend: GpuBackend) -> Listed:
        """The engine that runs the model on that backend, the first that is here; or why there is none."""
        if model.problem:
            return Listed(model, model.problem)
        if self.require_gpu and backend is GpuBackend.CPU:
            return Listed(model, NO_GPU)
        refused, missing = [], []
        for engine in self.engines:
            if model.format not in engine.formats or model.task not in engine.tasks:
                continue
            if reason := engine.can_run(model, backend):
                refused.append(reason)
            elif reason := engine.is_installed():
                missing.append(f"{engine.name} would run it, but {reason}")
            else:
                return Listed(model, engine=engine.name)
        reasons = dict.fromkeys(missing or refused)
        return Listed(model, "; ".join(reasons) or f"no engine here runs {model.format} for {model.task}")

    def _tell(self, listed: tuple[Listed, ...]) -> None:
        """One line of log for each model that has come, gone or been judged anew."""
        before = {(entry.model.id, entry.reason) for entry in self._listed}
        after = {(entry.model.id, entry.reason) for entry in listed}
        for model_id, reason in sorted(after - before):
            if reason:
                log.warning("not served: model=%s reason=%s", model_id, reason)
            else:
                log.info("served: model=%s", model_id)
        for model_id in sorted({key[0] for key in before} - {key[0] for key in after}):
            log.info("gone: model=%s", model_id)
