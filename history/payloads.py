"""Bodies at rest: compressed, then encrypted unless the operator chose otherwise."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final

import msgspec

from history.entries import RequestEntry
from llmlb_site.lib import zstd
from llmlb_site.lib.crypto import decrypt_bytes, encryptor

PURPOSE: Final = "history.payload"
_PLAIN: Final = b"\0"
_DEFLATED: Final = b"\1"  # as the first version wrote it
_ZSTD: Final = b"\2"
_WORTH_COMPRESSING: Final = 200  # bytes; below that there is nothing to save


class Payload(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is stored of one request's bodies: the columns of `RequestPayload`."""

    encrypted: bool
    bodies: bytes
    request_truncated: bool
    response_truncated: bool


class Bodies(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the client sent and what it got."""

    request: bytes
    response: bytes


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Bodies)


def seal(entries: Sequence[RequestEntry], mode: str) -> list[Payload | None]:
    """The bodies of each as they are stored under `LLMLB_HISTORY_PAYLOADS` = `mode`; None where there is nothing."""
    if mode == "none":
        return [None] * len(entries)
    encrypted = mode == "encrypted"
    close = encryptor(PURPOSE, len(entries)) if encrypted else bytes
    return [
        Payload(encrypted, close(_packed(entry)), entry.request_truncated, entry.response_truncated)
        if entry.request_body or entry.response_body
        else None
        for entry in entries
    ]


def _packed(entry: RequestEntry) -> bytes:
    plain = _encoder.encode((entry.request_body, entry.response_body))  # as `Bodies`
    return _ZSTD + zstd.compress(plain) if len(plain) >= _WORTH_COMPRESSING else _PLAIN + plain


def unpack(stored: bytes, *, encrypted: bool) -> Bodies:
    """The inverse of what `seal` did to them.

    Raises:
        DecryptionError: it was sealed with another secret key.
    """
    packed = decrypt_bytes(stored, PURPOSE) if encrypted else stored
    return _decoder.decode(_expanded(packed[:1], packed[1:]))


def _expanded(form: bytes, packed: bytes) -> bytes:
    if form == _ZSTD:
        return zstd.decompress(packed)
    return zlib.decompress(packed) if form == _DEFLATED else packed
