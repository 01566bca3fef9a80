"""Why a pull failed, in words for people. No text holds a token, or a URL's query, which may be a signature.

FetchFailed
├── BadWish        what was asked for cannot be fetched as it was asked for; another wording may help
├── OriginRefused  a URL, or a redirect, leads to a server that is not on the list
├── Interrupted    the connection or the server failed in a way that another attempt may get past
└── Cancelled      a person stopped it
"""

from __future__ import annotations


class FetchFailed(Exception):
    """The pull cannot succeed as things are."""


class BadWish(FetchFailed):
    """What was asked for is ambiguous, unknown or unsafe."""


class OriginRefused(FetchFailed):
    def __init__(self, origin: str) -> None:
        super().__init__(f"{origin} is not an allowed origin (LLM_RUNTIME_ALLOWED_ORIGINS)")


class Interrupted(FetchFailed):
    """Worth another attempt. `wait` is how long the server asks to be left alone, in seconds."""

    def __init__(self, text: str, *, wait: float = 0.0) -> None:
        super().__init__(text)
        self.wait = wait


class Cancelled(FetchFailed):
    def __init__(self) -> None:
        super().__init__("cancelled")
