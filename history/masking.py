"""What a body shows to whom: its structure to everyone who may read the history, its words only when revealed.

Masking lists what may be seen, not what must not: a field that nobody thought of is hidden.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from history.streams import assembled, is_stream

MASK: Final = "••••"

# Parameters and bookkeeping of the inference APIs. Their plain values say nothing about what was asked or answered.
_SHOWN: Final = frozenset(
    """model object type role id created index stream n seed temperature top_p top_k min_p max_tokens
    max_completion_tokens max_output_tokens presence_penalty frequency_penalty repeat_penalty logprobs top_logprobs
    best_of echo dimensions encoding_format response_format service_tier reasoning_effort effort truncation store
    parallel_tool_calls include_usage finish_reason stop_reason status system_fingerprint code param
    prompt_tokens completion_tokens total_tokens input_tokens output_tokens cached_tokens reasoning_tokens
    audio_tokens accepted_prediction_tokens rejected_prediction_tokens cache_creation_input_tokens
    cache_read_input_tokens size quality style voice speed format events top_n bytes
    content_type stream_format""".split()  # noqa: SIM905  # as a list it would be sixty lines
)
_LONGEST_SHOWN: Final = 300  # a model's name; what is longer is no parameter
# Whatever is below these is somebody's data, also where it is called `id` or `type`.
_HIDDEN_BELOW: Final = frozenset(
    """arguments metadata parameters input_schema schema json_schema properties logit_bias variables""".split()  # noqa: SIM905  # as above
)
# These hold messages or parts, which are looked into, or plain data, which is not.
_HIDDEN_IF_OBJECT: Final = frozenset({"input", "output", "content"})


def masked(body: bytes) -> Any:
    """A body as JSON whose words are replaced by their number; None for an empty one."""
    try:
        return _mask(readable(body), key="", hidden=False)
    except RecursionError:
        return _characters(len(body.decode(errors="replace")))


def readable(body: bytes) -> Any:
    """A body for people: JSON parsed, a stream put together, anything else as text. None for an empty one."""
    if not body:
        return None
    if is_stream(body):
        return assembled(body)
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return body.decode(errors="replace")


def pretty(value: Any) -> str:
    """As a person reads it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)


def _mask(value: Any, *, key: str, hidden: bool) -> Any:
    match value:
        case None | bool():
            return value
        case Mapping():
            below = hidden or key in _HIDDEN_BELOW or key in _HIDDEN_IF_OBJECT
            # The names in somebody's data are theirs too.
            return _fields(len(value)) if below else {n: _mask(item, key=n, hidden=False) for n, item in value.items()}
        case list():
            return _masked_list(value, key=key, hidden=hidden)
        case str():
            shown = key in _SHOWN and not hidden and len(value) <= _LONGEST_SHOWN
            return value if shown else _characters(len(value))
        case _:
            return value if key in _SHOWN and not hidden else MASK


def _masked_list(values: list[Any], *, key: str, hidden: bool) -> Any:
    if len(values) > 3 and all(isinstance(value, int | float) for value in values):
        return f"{MASK} ({len(values)} numbers)"
    hidden = hidden or key in _HIDDEN_BELOW
    # A list's objects are messages or parts: looked into, whatever the list is called.
    inner = "" if key in _HIDDEN_IF_OBJECT else key
    return [_mask(value, key=inner if isinstance(value, Mapping) else key, hidden=hidden) for value in values]


def _fields(number: int) -> str:
    return f"{MASK} ({number} fields)"


def _characters(number: int) -> str:
    return f"{MASK} ({number} character)" if number == 1 else f"{MASK} ({number} characters)"
