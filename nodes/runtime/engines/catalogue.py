"""Every engine, in the order in which they are asked: the first that is here and can run a model gets it."""

from __future__ import annotations

from typing import Final

from nodes.runtime.engines.base import Engine
from nodes.runtime.engines.embedding import OnnxEmbeddings
from nodes.runtime.engines.llama_cpp import LlamaCpp
from nodes.runtime.engines.mlx import Mlx
from nodes.runtime.engines.sd_cpp import StableDiffusionCpp
from nodes.runtime.engines.speech import FasterWhisper, Piper
from nodes.runtime.engines.vllm import Vllm

ENGINES: Final[tuple[Engine, ...]] = (
    LlamaCpp(),
    Vllm(),
    Mlx(),
    FasterWhisper(),
    Piper(),
    OnnxEmbeddings(),
    StableDiffusionCpp(),
)
