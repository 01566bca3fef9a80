"""faster-whisper (speech to text) and Piper (text to speech): Python packages behind small servers of our own."""

from __future__ import annotations

from nodes.runtime.backend import GpuBackend
from nodes.runtime.engines.base import Launch, Setup, missing_modules, own_server
from nodes.runtime.models import ModelFile, ModelFormat, Task


class FasterWhisper:
    """Whisper models in CTranslate2's format. Computes on the CPU wherever there is no CUDA."""

    name = "faster-whisper"
    formats = frozenset({ModelFormat.CTRANSLATE2})
    tasks = frozenset({Task.SPEECH_TO_TEXT})
    paths = frozenset({"/v1/audio/transcriptions", "/v1/audio/translations"})

    def is_installed(self) -> str:
        return missing_modules("faster_whisper")

    def can_run(self, model: ModelFile, backend: GpuBackend) -> str:
        if model.format is ModelFormat.CTRANSLATE2 and any("whisper" in name for name in model.architectures):
            return ""
        return "faster-whisper runs Whisper models in CTranslate2's format"

    def paths_for(self, model: ModelFile) -> frozenset[str]:
        return self.paths

    def command(self, model: ModelFile, port: int, setup: Setup) -> Launch:
        device = "cuda" if setup.backend is GpuBackend.CUDA else "cpu"
        how = ("--device", device, "--threads", str(setup.threads))
        return own_server("whisper", "--model", str(model.path), "--port", str(port), *how)


class Piper:
    """Piper's voices: an ONNX file with a JSON file of the same name beside it."""

    name = "piper"
    formats = frozenset({ModelFormat.PIPER})
    tasks = frozenset({Task.TEXT_TO_SPEECH})
    paths = frozenset({"/v1/audio/speech"})

    def is_installed(self) -> str:
        return missing_modules("piper")

    def can_run(self, model: ModelFile, backend: GpuBackend) -> str:
        return "" if model.format is ModelFormat.PIPER else "Piper speaks with Piper's voices alone"

    def paths_for(self, model: ModelFile) -> frozenset[str]:
        return self.paths

    def command(self, model: ModelFile, port: int, setup: Setup) -> Launch:
        return own_server("piper", "--model", str(model.path), "--port", str(port))
