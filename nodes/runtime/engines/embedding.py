"""ONNX Runtime: embeddings of encoders in ONNX files, behind a small server of our own."""

from __future__ import annotations

from nodes.runtime.backend import GpuBackend
from nodes.runtime.engines.base import Launch, Setup, missing_modules, own_server, why_not_architecture
from nodes.runtime.engines.tables import ONNX_ENCODERS
from nodes.runtime.models import ModelFile, ModelFormat, Task


class OnnxEmbeddings:
    """An encoder as sentence-transformers and optimum export it, with `tokenizer.json` beside it or one folder up."""

    name = "onnx"
    formats = frozenset({ModelFormat.ONNX})
    tasks = frozenset({Task.EMBEDDING})
    paths = frozenset({"/v1/embeddings"})

    def is_installed(self) -> str:
        return missing_modules("onnxruntime", "tokenizers")

    def can_run(self, model: ModelFile, backend: GpuBackend) -> str:
        if model.format is not ModelFormat.ONNX:
            return f"the ONNX engine runs ONNX files, not {model.format}"
        return why_not_architecture(model, ONNX_ENCODERS, "the ONNX engine")

    def paths_for(self, model: ModelFile) -> frozenset[str]:
        return self.paths

    def command(self, model: ModelFile, port: int, setup: Setup) -> Launch:
        how = ("--name", model.id, "--threads", str(setup.threads))
        return own_server("embeddings", "--model", str(model.path), "--port", str(port), *how)
