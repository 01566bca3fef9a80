"""Bodies at rest: compressed, then encrypted unless the operator chose otherwise."""

from __future__ import annotations

import zlib
from typing import Final

import msgspec

from history.entries import RequestEntry
from llmlb_site.lib import zstd
from llmlb_site.lib.crypto import decrypt_bytes, encrypt_bytes

PURPOSE: Final = "history.payload"
_PLAIN: Final = b"\0"
_DEFLATED: Final = b"\1"  # as the first version wrote it
_ZSTD: Final = b"\2"
_WORTH_COMPRESSING: Final = 200  # bytes; below that there is nothing to save


class Payload(msgspec.Struct, frozen=True, array_like=True):
    """What is stored of one request's bodies: the columns of `RequestPayload`."""

    encrypted: bool
    bodies: bytes
    request_truncated: bool
    response_truncated: bool


class Bodies(msgspec.Struct, frozen=True, array_like=True):
    """What the client sent and what it got."""

    request: bytes
    response: bytes


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Bodies)


def seal(entry: RequestEntry, mode: str) -> Payload | None:
    """The bodies of `entry` as they are stored under `LLMLB_HISTORY_PAYLOADS` = `mode`; None if there is nothing."""
    if mode == "none" or not (entry.request_body or entry.response_body):
        return None
    bodies = pack(Bodies(entry.request_body, entry.response_body), encrypted=mode == "encrypted")
    return Payload(mode == "encrypted", bodies, entry.request_truncated, entry.response_truncated)


def pack(bodies: Bodies, *, encrypted: bool) -> bytes:
    """Both bodies as they are stored."""
    plain = _encoder.encode(bodies)
    packed = _ZSTD + zstd.compress(plain) if len(plain) >= _WORTH_COMPRESSING else _PLAIN + plain
    return encrypt_bytes(packed, PURPOSE) if encrypted else packed


def unpack(stored: bytes, *, encrypted: bool) -> Bodies:
    """The inverse of `pack`.

    Raises:
        DecryptionError: it was sealed with another secret key.
    """
    packed = decrypt_bytes(stored, PURPOSE) if encrypted else stored
    return _decoder.decode(_expanded(packed[:1], packed[1:]))


def _expanded(form: bytes, packed: bytes) -> bytes:
    if form == _ZSTD:
        return zstd.decompress(packed)
    return zlib.decompress(packed) if form == _DEFLATED else packed
