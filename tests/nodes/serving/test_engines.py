"""Which engine runs what, and the command line that it is started with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nodes.runtime.backend import GpuBackend
from nodes.runtime.engines import llama_cpp
from nodes.runtime.engines.base import Engine, Setup
from nodes.runtime.engines.catalogue import ENGINES
from nodes.runtime.files.architectures import families
from nodes.runtime.models import ModelFile, ModelFormat, Task
from tests.support import stand_in_engine

BY_NAME: dict[str, Engine] = {engine.name: engine for engine in ENGINES}
EVERYWHERE = frozenset(GpuBackend)


def model(
    model_format: ModelFormat, *architectures: str, task: Task = Task.TEXT, quantization: str = "", context: int = 4096
) -> ModelFile:
    return ModelFile(
        "org/name",
        Path("/models/org/name"),
        model_format,
        families(architectures),
        task=task,
        quantization=quantization,
        context_length=context,
    )


GGUF, SAFETENSORS = ModelFormat.GGUF, ModelFormat.SAFETENSORS
LLAMA = "LlamaForCausalLM"
RUNS: list[tuple[ModelFile, dict[str, frozenset[GpuBackend]]]] = [
    (model(GGUF, "llama"), {"llama.cpp": EVERYWHERE}),
    (model(GGUF, "bert", task=Task.EMBEDDING), {"llama.cpp": EVERYWHERE}),
    (model(GGUF, "gpt-oss"), {"llama.cpp": EVERYWHERE}),
    (model(GGUF, "frobnicator"), {}),
    (model(GGUF), {}),
    (model(GGUF, "flux", task=Task.IMAGE), {"stable-diffusion.cpp": EVERYWHERE}),
    (
        model(SAFETENSORS, LLAMA),
        {"vllm": frozenset({GpuBackend.CUDA, GpuBackend.ROCM}), "mlx": frozenset({GpuBackend.METAL})},
    ),
    (model(SAFETENSORS, LLAMA, quantization="mlx-4bit"), {"mlx": frozenset({GpuBackend.METAL})}),
    (model(SAFETENSORS, LLAMA, quantization="awq-4bit"), {"vllm": frozenset({GpuBackend.CUDA, GpuBackend.ROCM})}),
    (
        model(SAFETENSORS, "BertModel", task=Task.EMBEDDING),
        {"vllm": frozenset({GpuBackend.CUDA, GpuBackend.ROCM})},
    ),
    (model(SAFETENSORS, "NobodysForCausalLM"), {}),
    (model(ModelFormat.CTRANSLATE2, "whisper", task=Task.SPEECH_TO_TEXT), {"faster-whisper": EVERYWHERE}),
    (model(ModelFormat.CTRANSLATE2, "nllb"), {}),
    (model(ModelFormat.PIPER, "piper", task=Task.TEXT_TO_SPEECH), {"piper": EVERYWHERE}),
    (model(ModelFormat.ONNX, "BertModel", task=Task.EMBEDDING), {"onnx": EVERYWHERE}),
    (model(ModelFormat.ONNX, "LlamaForCausalLM"), {}),
    (model(ModelFormat.DIFFUSERS, "StableDiffusionXLPipeline", task=Task.IMAGE), {"stable-diffusion.cpp": EVERYWHERE}),
    (model(ModelFormat.DIFFUSERS, "NobodysPipeline", task=Task.IMAGE), {}),
]


@pytest.mark.parametrize(("found", "expected"), RUNS)
def test_which_engine_runs_a_model_on_which_backend(
    found: ModelFile, expected: dict[str, frozenset[GpuBackend]]
) -> None:
    able = {
        engine.name: frozenset(backend for backend in GpuBackend if not engine.can_run(found, backend))
        for engine in ENGINES
        if found.format in engine.formats
    }
    assert {name: backends for name, backends in able.items() if backends} == expected


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_a_refusal_says_why(engine: Engine) -> None:
    strange = replace(model(next(iter(engine.formats)), "frobnicator"), task=Task.TEXT)
    reason = engine.can_run(strange, GpuBackend.CPU)
    assert engine.name == "piper" or reason, "Piper's format has no architectures"


@pytest.mark.parametrize("found", [found for found, engines in RUNS if engines], ids=lambda found: found.format)
def test_what_it_serves_is_among_its_paths(found: ModelFile) -> None:
    for engine in ENGINES:
        if found.format in engine.formats and not all(engine.can_run(found, backend) for backend in GpuBackend):
            assert engine.paths_for(found)
            assert engine.paths_for(found) <= engine.paths


COMMANDS = [
    ("vllm", model(SAFETENSORS, LLAMA), "vllm", ["serve", "/models/org/name", "--served-model-name", "org/name"]),
    ("mlx", model(SAFETENSORS, LLAMA), "mlx_lm.server", ["--model", "/models/org/name", "--host", "127.0.0.1"]),
    ("llama.cpp", model(GGUF, "llama"), "llama-server", ["--model", "/models/org/name", "--alias", "org/name"]),
    (
        "stable-diffusion.cpp",
        model(ModelFormat.DIFFUSERS, "StableDiffusionPipeline", task=Task.IMAGE),
        "sd-server",
        ["--model", "/models/org/name", "--listen-ip", "127.0.0.1", "--listen-port", "4711"],
    ),
]


@pytest.mark.parametrize(("name", "found", "program", "begins"), COMMANDS)
def test_a_program_is_started_with_options_that_it_has(
    name: str, found: ModelFile, program: str, begins: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(stand_in_engine.install(tmp_path)))
    assert BY_NAME[name].is_installed() == ""
    argv = list(BY_NAME[name].command(found, 4711, Setup(GpuBackend.CUDA, parallel=2, context=2048, threads=3)).argv)
    at = argv.index(str(tmp_path / program))
    assert argv[at + 1 :][: len(begins)] == begins
    assert stand_in_engine.options_of(program, argv[at + 1 :]) == ("/models/org/name", 4711)


def test_an_engine_that_is_not_there_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert BY_NAME["vllm"].is_installed() == "vllm is not on the path"
    monkeypatch.setattr(llama_cpp, "has_module", lambda name: False)
    assert "llama-server is not on the path" in BY_NAME["llama.cpp"].is_installed()


def test_llama_cpp_gets_the_context_of_all_its_requests_and_its_layers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(stand_in_engine.install(tmp_path)))

    def options(found: ModelFile, setup: Setup) -> list[str]:
        return list(BY_NAME["llama.cpp"].command(found, 1, setup).argv)

    on_gpu = options(model(GGUF, "llama", context=2048), Setup(GpuBackend.CUDA, parallel=4, context=8192))
    assert on_gpu[on_gpu.index("--ctx-size") + 1] == "8192", "4 requests of the model's own 2048"
    assert on_gpu[on_gpu.index("--n-gpu-layers") + 1] == "999"
    on_cpu = options(model(GGUF, "llama"), Setup())
    assert "--ctx-size" not in on_cpu
    assert on_cpu[on_cpu.index("--n-gpu-layers") + 1] == "0"
    embeds = options(model(GGUF, "bert", task=Task.EMBEDDING), Setup())
    ranks = options(model(GGUF, "bert", task=Task.RERANK), Setup())
    assert ("--embeddings" in embeds, "--reranking" in ranks) == (True, True)
    sees = options(replace(model(GGUF, "llama"), projector=Path("/models/mmproj.gguf")), Setup())
    assert sees[-2:] == ["--mmproj", "/models/mmproj.gguf"]
