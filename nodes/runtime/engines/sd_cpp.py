"""stable-diffusion.cpp: images. https://github.com/leejet/stable-diffusion.cpp/blob/master/examples/server/api.md"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from nodes.runtime.backend import GpuBackend
from nodes.runtime.engines.base import Launch, Setup, find_program, foreign_program, why_not_architecture
from nodes.runtime.engines.tables import SD_CPP
from nodes.runtime.models import ModelFile, ModelFormat, Task

PROGRAM: Final = "sd-server"
FORMATS: Final = frozenset({ModelFormat.DIFFUSERS, ModelFormat.GGUF, ModelFormat.SAFETENSORS})


class StableDiffusionCpp:
    name = "stable-diffusion.cpp"
    formats = FORMATS
    tasks = frozenset({Task.IMAGE})
    paths = frozenset({"/v1/images/generations", "/v1/images/edits"})

    def is_installed(self) -> str:
        return "" if find_program(PROGRAM) else f"{PROGRAM} is not on the path"

    def can_run(self, model: ModelFile, backend: GpuBackend) -> str:
        if model.task is not Task.IMAGE or model.format not in FORMATS:
            return "stable-diffusion.cpp runs models that make images"
        return why_not_architecture(model, SD_CPP, self.name)

    def paths_for(self, model: ModelFile) -> frozenset[str]:
        return self.paths

    def command(self, model: ModelFile, port: int, setup: Setup) -> Launch:
        program = find_program(PROGRAM) or PROGRAM
        arguments = ("--model", str(model.path), "--listen-ip", "127.0.0.1", "--listen-port", str(port))
        # It listens once the model is loaded, and has no page for its health.
        return replace(foreign_program(program, *arguments), ready_path="/v1/models")
