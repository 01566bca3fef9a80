"""Names of architectures, and their families."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.runtime.files.architectures import FAMILIES, families, normalise


# The twelve pairs of SPEC-93536000, task 7.10.
@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("Qwen2ForCausalLM", "qwen"),
        ("Qwen2_5ForCausalLM", "qwen"),
        ("LlamaForCausalLM", "llama"),
        ("MistralForCausalLM", "mistral"),
        ("GemmaForCausalLM", "gemma"),
        ("Phi3ForCausalLM", "phi"),
        ("DeepseekV3ForCausalLM", "deepseek"),
        ("GptOssForCausalLM", "gptoss"),
        ("ChatGLM4ForCausalLM", "glm"),
        ("GraniteForCausalLM", "granite"),
        ("SmolLMForCausalLM", "smollm"),
        ("NemotronForCausalLM", "nemotron"),
    ],
)
def test_the_twelve_families(name: str, family: str) -> None:
    assert normalise(name) == family


@pytest.mark.parametrize("name", ["gptoss", "gpt-oss", "GPT_OSS", "GptOssForCausalLM"])
def test_gpt_oss_is_one_architecture_in_every_spelling(name: str) -> None:
    assert normalise(name) == "gptoss"


def test_an_unknown_name_is_its_own_family() -> None:
    assert normalise("UnknownCustomForCausalLM") == "unknowncustomforcausallm"


def test_spellings_of_one_family_collapse_and_the_order_stays() -> None:
    assert families(["LlamaForCausalLM", "LLaMAForCausalLM", "LlamaModel"]) == ("llama",)
    assert families(["MixtralForCausalLM", "qwen2", "--", "Qwen3"]) == ("mixtralforcausallm", "qwen")


def test_the_first_family_in_the_order_wins() -> None:
    assert normalise("LlamaQwenForCausalLM") == "qwen"
    assert normalise("NemotronPhi") == "phi"


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_the_family_of_its_own_name(family: str) -> None:
    assert normalise(f"{family.title()}ForCausalLM") == family


@given(st.text())
def test_any_text_has_a_family_of_letters_and_digits_which_is_its_own_family(name: str) -> None:
    family = normalise(name)
    assert family == "" or (family.isascii() and family.isalnum() and family == family.lower())
    assert normalise(family) == family
