"""From an engine's or a library's name of an architecture to the family that we speak of (SPEC-93536000, phase 7).

`Qwen2_5ForCausalLM`, `qwen2` and `Qwen3MoeForCausalLM` are all `qwen`; `gpt-oss`, `gptoss` and `GptOssForCausalLM`
are all `gptoss` (SPEC-8a2d1d43). A name of no known family is its own family, in lower case, letters and digits alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

# In this order: the first that a name contains is its family.
FAMILIES: Final = (
    "qwen",
    "llama",
    "mistral",
    "gemma",
    "phi",
    "nemotron",
    "deepseek",
    "gptoss",
    "glm",
    "granite",
    "smollm",
    "kimi",
    "moondream",
    "snowflake",
    "nomic",
    "mxbai",
    "minilm",
    "devstral",
    "magistral",
)
_OTHER: Final = re.compile(r"[^a-z0-9]+")


def normalise(name: str) -> str:
    """The family of one architecture name; empty where the name has neither letter nor digit."""
    compact = _OTHER.sub("", name.lower())
    return next((family for family in FAMILIES if family in compact), compact)


def families(names: Iterable[str]) -> tuple[str, ...]:
    """The families of several names in their order, each once."""
    return tuple(dict.fromkeys(family for name in names if (family := normalise(name))))
