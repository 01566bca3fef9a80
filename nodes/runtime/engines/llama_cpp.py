"""llama.cpp: GGUF models of text, embeddings and ranking, on every backend.

`llama-server` on the path is taken where there is one, because whoever built it chose its backend; otherwise the
xllamacpp package, which holds the same server. https://github.com/ggml-org/llama.cpp/tree/master/tools/server
"""

from __future__ import annotations

from typing import Final

from nodes.runtime.backend import GpuBackend
from nodes.runtime.engines.base import (
    Launch,
    Setup,
    context_tokens,
    find_program,
    foreign_program,
    has_module,
    own_server,
    why_not_architecture,
)
from nodes.runtime.engines.tables import LLAMA_CPP
from nodes.runtime.models import ModelFile, ModelFormat, Task

PROGRAM: Final = "llama-server"
PACKAGE: Final = "xllamacpp"
PATHS: Final = {
    Task.TEXT: frozenset(
        {
            "/v1/chat/completions",
            "/v1/completions",
            "/v1/responses",
            "/v1/messages",
            "/v1/messages/count_tokens",
        }
    ),
    Task.EMBEDDING: frozenset({"/v1/embeddings"}),
    Task.RERANK: frozenset({"/v1/rerank"}),
}
FLAGS: Final = {Task.EMBEDDING: ("--embeddings",), Task.RERANK: ("--reranking",)}
EVERY_LAYER: Final = "999"


class LlamaCpp:
    name = "llama.cpp"
    formats = frozenset({ModelFormat.GGUF})
    tasks = frozenset(PATHS)
    paths = frozenset[str]().union(*PATHS.values())

    def is_installed(self) -> str:
        if find_program(PROGRAM) or has_module(PACKAGE):
            return ""
        return f"{PROGRAM} is not on the path, and the Python package {PACKAGE} is not installed"

    def can_run(self, model: ModelFile, backend: GpuBackend) -> str:
        if model.format is not ModelFormat.GGUF:
            return f"llama.cpp runs GGUF files, not {model.format}"
        return why_not_architecture(model, LLAMA_CPP, self.name)

    def paths_for(self, model: ModelFile) -> frozenset[str]:
        return PATHS[model.task]

    def command(self, model: ModelFile, port: int, setup: Setup) -> Launch:
        arguments = [*_where(model, port), *_sizes(model, setup), *FLAGS.get(model.task, ())]
        if model.projector is not None:
            arguments += ["--mmproj", str(model.projector)]
        program = find_program(PROGRAM)
        return foreign_program(program, *arguments) if program is not None else own_server("llama", *arguments)


def _where(model: ModelFile, port: int) -> list[str]:
    return ["--model", str(model.path), "--alias", model.id, "--host", "127.0.0.1", "--port", str(port)]


def _sizes(model: ModelFile, setup: Setup) -> list[str]:
    """llama.cpp divides the context that it is given among its parallel requests."""
    layers = "0" if setup.backend is GpuBackend.CPU else EVERY_LAYER
    arguments = ["--parallel", str(setup.parallel), "--n-gpu-layers", layers]
    if setup.threads:
        arguments += ["--threads", str(setup.threads)]
    tokens = context_tokens(model, setup)
    return arguments + (["--ctx-size", str(tokens * setup.parallel)] if tokens else [])
