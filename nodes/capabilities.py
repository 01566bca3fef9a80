"""What models can be asked to do: the words for it. Those that people read are in `nodes.capability_labels`."""

from __future__ import annotations

from typing import Final

TEXT: Final = "text"
VISION: Final = "vision"
EMBEDDING: Final = "embedding"
RERANK: Final = "rerank"
SPEECH_TO_TEXT: Final = "speech-to-text"
TEXT_TO_SPEECH: Final = "text-to-speech"
IMAGE: Final = "image"
TOOLS: Final = "tools"

# How the mismatch message names each: "Model 'x' does not support …".
PHRASES: Final[dict[str, str]] = {
    TEXT: "text generation",
    VISION: "vision",
    EMBEDDING: "embeddings",
    RERANK: "reranking",
    SPEECH_TO_TEXT: "speech-to-text",
    TEXT_TO_SPEECH: "text-to-speech",
    IMAGE: "image generation",
    TOOLS: "tools",
}
ALL: Final = frozenset(PHRASES)
