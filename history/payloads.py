"""Bodies at rest: compressed, then encrypted unless the operator chose otherwise."""

from __future__ import annotations

import zlib
from typing import Final

import msgspec

from history.entries import RequestEntry
from llmlb_site.lib.crypto import decrypt_bytes, encrypt_bytes

PURPOSE: Final = "history.payload"
_PLAIN: Final = b"\0"
_DEFLATED: Final = b"\1"
_WORTH_DEFLATING: Final = 200  # bytes; below that the compressor's set-up costs more than it saves


class Payload(msgspec.Struct, frozen=True, array_like=True):
    """What is stored of one request's bodies: the columns of `RequestPayload`."""

    encrypted: bool
    request: bytes
    response: bytes
    request_truncated: bool
    response_truncated: bool

    @property
    def size(self) -> int:
        return len(self.request) + len(self.response)


def seal(entry: RequestEntry, mode: str) -> Payload | None:
    """The bodies of `entry` as they are stored under `LLMLB_HISTORY_PAYLOADS` = `mode`; None if there is nothing."""
    if mode == "none" or not (entry.request_body or entry.response_body):
        return None
    encrypted = mode == "encrypted"
    return Payload(
        encrypted,
        pack(entry.request_body, encrypted=encrypted),
        pack(entry.response_body, encrypted=encrypted),
        entry.request_truncated,
        entry.response_truncated,
    )


def pack(body: bytes, *, encrypted: bool) -> bytes:
    """A body as stored; an empty one stays empty."""
    if not body:
        return b""
    packed = _DEFLATED + zlib.compress(body, 1) if len(body) >= _WORTH_DEFLATING else _PLAIN + body
    return encrypt_bytes(packed, PURPOSE) if encrypted else packed


def unpack(stored: bytes, *, encrypted: bool) -> bytes:
    """The inverse of `pack`.

    Raises:
        DecryptionError: it was sealed with another secret key.
    """
    if not stored:
        return b""
    packed = decrypt_bytes(bytes(stored), PURPOSE) if encrypted else bytes(stored)
    return zlib.decompress(packed[1:]) if packed[:1] == _DEFLATED else packed[1:]
