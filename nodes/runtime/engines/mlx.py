"""MLX: safetensors models on Apple's GPUs. https://github.com/ml-explore/mlx-lm/blob/main/mlx_lm/SERVER.md"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from nodes.runtime.backend import GpuBackend
from nodes.runtime.engines.base import Launch, Setup, find_program, foreign_program, why_not_architecture
from nodes.runtime.engines.tables import MLX
from nodes.runtime.models import ModelFile, ModelFormat, Task

PROGRAM: Final = "mlx_lm.server"
# Any other name makes it load, or fetch, the model of that name.
LOADED_MODEL: Final = "default_model"
# Quantisations of other engines, which MLX cannot read.
FOREIGN: Final = ("awq", "gptq", "fp8", "bitsandbytes", "compressed-tensors", "aqlm", "hqq", "quark")


class Mlx:
    name = "mlx"
    formats = frozenset({ModelFormat.SAFETENSORS})
    tasks = frozenset({Task.TEXT})
    paths = frozenset({"/v1/chat/completions", "/v1/completions"})

    def is_installed(self) -> str:
        return "" if find_program(PROGRAM) else f"{PROGRAM} is not on the path"

    def can_run(self, model: ModelFile, backend: GpuBackend) -> str:
        if model.format is not ModelFormat.SAFETENSORS:
            return f"MLX runs safetensors, not {model.format}"
        if model.quantization.lower().startswith(FOREIGN):
            return f"it is quantised as {model.quantization}, which MLX cannot read"
        if unknown := why_not_architecture(model, MLX, "MLX"):
            return unknown  # before the backend: another machine would not know it either
        return "" if backend is GpuBackend.METAL else f"MLX runs on Metal, not on {backend}"

    def paths_for(self, model: ModelFile) -> frozenset[str]:
        return self.paths

    def command(self, model: ModelFile, port: int, setup: Setup) -> Launch:
        program = find_program(PROGRAM) or PROGRAM
        arguments = ("--model", str(model.path), "--host", "127.0.0.1", "--port", str(port))
        return replace(foreign_program(program, *arguments), model_name=LOADED_MODEL)
