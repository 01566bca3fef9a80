"""How many tokens a request took: as the node counted them, else an honest estimate."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Literal

import msgspec

# Common byte-pair vocabularies: about four ASCII characters a token, and about 1.3 other characters.
ASCII_PER_TOKEN: Final = 4.0
OTHER_PER_TOKEN: Final = 1.3


class Tokens(msgspec.Struct, frozen=True):
    """Token counts of one request. `source` says who counted."""

    prompt: int
    completion: int
    source: Literal["usage", "estimated"] = "usage"

    @property
    def total(self) -> int:
        return self.prompt + self.completion


class UsageFields(msgspec.Struct):
    """`usage` as OpenAI's chat and completions say it, and as Responses and Anthropic do."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None

    def tokens(self) -> Tokens | None:
        prompt = self.prompt_tokens if self.prompt_tokens is not None else self.input_tokens
        completion = self.completion_tokens if self.completion_tokens is not None else self.output_tokens
        if prompt is None and completion is None and self.total_tokens is None:
            return None
        if prompt is None:
            prompt = max(0, (self.total_tokens or 0) - (completion or 0))
        return Tokens(prompt, completion or 0)


def estimate(texts: Iterable[str]) -> int:
    """Tokens that these texts would take, to within a quarter or so. Needs no vocabulary."""
    characters = ascii_characters = 0
    for text in texts:
        characters += len(text)
        ascii_characters += len(text.encode("ascii", "ignore"))
    return round(ascii_characters / ASCII_PER_TOKEN + (characters - ascii_characters) / OTHER_PER_TOKEN)


def texts_in(value: Any) -> Iterable[str]:
    """Every text of a prompt, however it is nested: a string, parts, messages. Data URLs are not text."""
    if isinstance(value, str):
        if not value.startswith("data:"):
            yield value
    elif isinstance(value, list):
        for item in value:
            yield from texts_in(item)
    elif isinstance(value, dict):
        for name in ("content", "text", "prompt", "input", "messages", "reasoning_content"):
            if name in value:
                yield from texts_in(value[name])
