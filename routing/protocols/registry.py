"""Every inference API, by the path that it is served at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from routing.protocols import anthropic, audio, embeddings, images, openai, rerank, responses
from routing.protocols.base import Api

APIS: Final[Mapping[str, Api]] = {
    **openai.APIS,
    **responses.APIS,
    **anthropic.APIS,
    **embeddings.APIS,
    **rerank.APIS,
    **audio.APIS,
    **images.APIS,
}
