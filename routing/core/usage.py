"""How many tokens a request took: as the node counted them, else an honest estimate."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

# Common byte-pair vocabularies: about four ASCII characters a token, and about 1.3 other characters.
ASCII_PER_TOKEN: Final = 4.0
OTHER_PER_TOKEN: Final = 1.3
# Of a document that is longer, the rest is taken for like its beginning.
LOOKED_AT_BYTES: Final = 128 * 1024
# Ten times the longest context that a model has. Sums of a few such stay within the history's 32 bits.
MOST_TOKENS: Final = 100_000_000
# What cannot be a count says nothing: some servers mean "unknown" by -1.
Count = Annotated[int, msgspec.Meta(ge=0, le=MOST_TOKENS)]
# A string, and the colon that makes it a member's name.
_STRING: Final = re.compile(rb'"([^"\\]*+(?:\\.[^"\\]*+)*+)"(\s*+:)?', re.DOTALL)

NOT_TOLD: Final = msgspec.Raw(b"null")
Counts = TypeVar("Counts")


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

    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    total_tokens: Count | None = None
    input_tokens: Count | None = None
    output_tokens: Count | None = None

    def tokens(self) -> Tokens | None:
        if self.prompt_tokens is not None and self.completion_tokens is not None:
            return Tokens(self.prompt_tokens, self.completion_tokens)
        prompt = self.prompt_tokens if self.prompt_tokens is not None else self.input_tokens
        completion = self.completion_tokens if self.completion_tokens is not None else self.output_tokens
        if prompt is None and completion is None and self.total_tokens is None:
            return None
        if prompt is None:
            prompt = max(0, (self.total_tokens or 0) - (completion or 0))
        return Tokens(prompt, completion or 0)


def counts_in(raw: msgspec.Raw, decoder: msgspec.json.Decoder[Counts]) -> Counts | None:
    """The counts in a `usage` member, as it stands in an answer; None where it tells none, or one that cannot be.

    They are read apart from the answer, which is worth something without them.
    """
    if raw == NOT_TOLD:
        return None
    try:
        return decoder.decode(raw)
    except msgspec.DecodeError:
        return None


def estimate(texts: Iterable[str]) -> int:
    """Tokens that these texts would take, to within a quarter or so; one at least, if they say anything. Needs no
    vocabulary.
    """
    characters = ascii_characters = 0
    for text in texts:
        characters += len(text)
        ascii_characters += len(text.encode("ascii", "ignore"))
    tokens = round(ascii_characters / ASCII_PER_TOKEN + (characters - ascii_characters) / OTHER_PER_TOKEN)
    return max(tokens, 1 if characters else 0)


def estimate_document(document: bytes) -> int:
    """About the tokens of all texts in a long JSON document: those of its beginning, and as many for as much more.

    Taking it apart would stop everything else: half a million tiny messages are 14 MB and a second.
    """
    texts, seen = [], len(document)
    for found in _STRING.finditer(document):
        if found[2] is None:
            texts.append(_as_text(found[1]))
        if found.end() > LOOKED_AT_BYTES:
            seen = found.end()
            break
    return round(estimate(texts) * len(document) / seen)


def _as_text(raw: bytes) -> str:
    """What stands between the quotes of a JSON string; nothing, where that is a data URL."""
    if raw.startswith(b"data:"):
        return ""
    if b"\\" in raw:
        return msgspec.json.decode(b'"%b"' % raw, type=str)
    return raw.decode(errors="replace")


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
