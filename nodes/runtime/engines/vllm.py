"""vLLM: safetensors models on CUDA and ROCm. https://docs.vllm.ai/en/latest/cli/serve.html"""

from __future__ import annotations

from typing import Final

from nodes.runtime.backend import GpuBackend
from nodes.runtime.engines.base import (
    Launch,
    Setup,
    context_tokens,
    find_program,
    foreign_program,
    why_not_architecture,
)
from nodes.runtime.engines.tables import VLLM
from nodes.runtime.models import ModelFile, ModelFormat, Task

PROGRAM: Final = "vllm"
BACKENDS: Final = frozenset({GpuBackend.CUDA, GpuBackend.ROCM})
PATHS: Final = {
    Task.TEXT: frozenset({"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"}),
    Task.EMBEDDING: frozenset({"/v1/embeddings"}),
    Task.RERANK: frozenset({"/v1/rerank"}),
}


class Vllm:
    name = "vllm"
    formats = frozenset({ModelFormat.SAFETENSORS})
    tasks = frozenset(PATHS)
    paths = frozenset[str]().union(*PATHS.values())

    def is_installed(self) -> str:
        return "" if find_program(PROGRAM) else f"{PROGRAM} is not on the path"

    def can_run(self, model: ModelFile, backend: GpuBackend) -> str:
        if model.format is not ModelFormat.SAFETENSORS:
            return f"vLLM runs safetensors, not {model.format}"
        if model.quantization.lower().startswith("mlx"):
            return "it is quantised for MLX, which vLLM cannot read"
        if unknown := why_not_architecture(model, VLLM, "vLLM"):
            return unknown  # before the backend: another machine would not know it either
        return "" if backend in BACKENDS else f"vLLM runs on CUDA and ROCm, not on {backend}"

    def paths_for(self, model: ModelFile) -> frozenset[str]:
        return PATHS[model.task]

    def command(self, model: ModelFile, port: int, setup: Setup) -> Launch:
        program = find_program(PROGRAM) or PROGRAM
        arguments = ["--served-model-name", model.id, "--host", "127.0.0.1", "--port", str(port)]
        arguments += ["--max-num-seqs", str(setup.parallel)]
        if tokens := context_tokens(model, setup):
            arguments += ["--max-model-len", str(tokens)]
        return foreign_program(program, "serve", str(model.path), *arguments)
