"""Which requests begin alike: a number from the beginning of a prompt, for the node that may still remember it."""

from __future__ import annotations

from typing import Final
from zlib import crc32

# The members that hold the prompt, in the order in which they are looked for; and how far into a body, in bytes.
_PROMPTS: Final = (b'"messages"', b'"input"', b'"prompt"')
_SOUGHT_BYTES: Final = 64 * 1024
# How much of a prompt counts, in bytes: a system prompt, and how the conversation began.
PROMPT_BYTES: Final = 4096
_USER: Final = b'"user"'


def affinity_of(body: bytes) -> int:
    """32 bits, the same for every turn of one conversation, and rarely for two; 0 for a body without a prompt.

    What counts ends with the first message of the user: all that comes later is different in the next turn.
    """
    for member in _PROMPTS:
        start = body.find(member, 0, _SOUGHT_BYTES)
        if start >= 0:
            end = start + PROMPT_BYTES
            said = body.find(_USER, start, end)
            closed = body.find(b"}", said, end) if said >= 0 else -1
            return crc32(body[start : closed if closed >= 0 else end]) or 1
    return 0
