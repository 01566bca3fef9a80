"""The form of API keys and sign-in tokens. Pure functions: the gateway calls them on every request.

A key is `sk_`, twelve characters of public id and thirty-two of secret. The public id finds the row (or the entry of
the gateway's table), the keyed hash of the secret proves it. A bootstrap key may be any text of 32 characters or
more: its public id is derived from it by a keyed hash, and is longer than a minted one, so that the two never meet.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from typing import Final

from llmlb_site.lib.crypto import keyed_hash, random_base62

KEY_PREFIX: Final = "sk_"
TOKEN_PREFIX: Final = "st_"  # noqa: S105  # the public start of every sign-in token
PUBLIC_ID_LENGTH: Final = 12
SECRET_LENGTH: Final = 32
SHORTEST: Final = 32
LONGEST: Final = 512

_KEY: Final = re.compile(rf"sk_([A-Za-z0-9]{{{PUBLIC_ID_LENGTH}}})([A-Za-z0-9]{{{SECRET_LENGTH},}})")
_TOKEN: Final = re.compile(rf"st_([A-Za-z0-9]{{{PUBLIC_ID_LENGTH}}})([A-Za-z0-9]{{{SECRET_LENGTH}}})")
_DERIVED_ID_LENGTH: Final = 16
_NO_DIGEST: Final = bytes(32)


@dataclass(frozen=True, slots=True)
class MintedKey:
    """A new credential. `text` is shown to its owner once; the other two are stored."""

    text: str
    public_id: str
    digest: bytes


def mint() -> MintedKey:
    """A new API key."""
    return _mint(KEY_PREFIX, "api key")


def mint_token() -> MintedKey:
    """A new sign-in token."""
    return _mint(TOKEN_PREFIX, "sign-in token")


def split(text: str) -> tuple[str, str] | None:
    """The public id and the secret of what was presented as an API key; None if it can be none."""
    if not SHORTEST <= len(text) <= LONGEST:
        return None
    if match := _KEY.fullmatch(text):
        return match[1], match[2]
    return keyed_hash(text, "api key id").hex()[:_DERIVED_ID_LENGTH], text


def split_token(text: str) -> tuple[str, str] | None:
    """The public id and the secret of what was presented as a sign-in token; None if it is none."""
    match = _TOKEN.fullmatch(text)
    return (match[1], match[2]) if match else None


def digest(secret: str) -> bytes:
    """What is stored of an API key's secret."""
    return keyed_hash(secret, "api key")


def token_digest(secret: str) -> bytes:
    """What is stored of a sign-in token's secret."""
    return keyed_hash(secret, "sign-in token")


def same(presented: bytes, stored: bytes | memoryview | None) -> bool:
    """Whether the digests are equal, in a time that tells nothing. `stored` None (unknown id) takes as long."""
    return hmac.compare_digest(presented, bytes(stored) if stored is not None else _NO_DIGEST) and stored is not None


def shown(public_id: str) -> str:
    """The part of a key that may be shown: how it starts, or an id in place of a start that is part of the secret."""
    return f"{KEY_PREFIX}{public_id}" if len(public_id) == PUBLIC_ID_LENGTH else f"#{public_id}"


def _mint(prefix: str, purpose: str) -> MintedKey:
    public_id, secret = random_base62(PUBLIC_ID_LENGTH), random_base62(SECRET_LENGTH)
    return MintedKey(prefix + public_id + secret, public_id, keyed_hash(secret, purpose))
