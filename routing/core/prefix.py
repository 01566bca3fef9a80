"""Which cloud provider a model's name asks for: `openai:gpt-4o` asks OpenAI for `gpt-4o` (SPEC-4b6e9f2a)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

# `ahtnorpic` is a slip of the pen in upstream's first version, which its users' scripts went on writing.
_PROVIDERS: Final[Mapping[str, str]] = {
    "openai": "openai",
    "google": "google",
    "anthropic": "anthropic",
    "ahtnorpic": "anthropic",
}


def split(name: str) -> tuple[str, str] | None:
    """Provider and model, or None: any other colon belongs to the model's own name, as in `llama3.2:3b`."""
    prefix, colon, model = name.partition(":")
    provider = _PROVIDERS.get(prefix) if colon else None
    return (provider, model) if provider is not None else None


def canonical(name: str) -> str:
    """The name with its prefix spelt as it is listed; also what a key's list of models says."""
    parts = split(name)
    return ":".join(parts) if parts is not None else name
