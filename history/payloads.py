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
    bodies: bytes
    request_truncated: bool
    response_truncated: bool


class Bodies(msgspec.Struct, frozen=True, array_like=True):
    """What the client sent and what it got."""

    request: bytes
    response: bytes


_decoder: Final = msgspec.msgpack.Decoder(Bodies)


def seal(entry: RequestEntry, mode: str) -> Payload | None:
    """The bodies of `entry` as they are stored under `LLMLB_HISTORY_PAYLOADS` = `mode`; None if there is nothing."""
    if mode == "none" or not (entry.request_body or entry.response_body):
        return None
    bodies = pack(Bodies(entry.request_body, entry.response_body), encrypted=mode == "encrypted")
    return Payload(mode == "encrypted", bodies, entry.request_truncated, entry.response_truncated)


def pack(bodies: Bodies, *, encrypted: bool) -> bytes:
    """Both bodies as they are stored."""
    plain = msgspec.msgpack.encode(bodies)
    packed = _DEFLATED + zlib.compress(plain, 1) if len(plain) >= _WORTH_DEFLATING else _PLAIN + plain
    return encrypt_bytes(packed, PURPOSE) if encrypted else packed


def unpack(stored: bytes, *, encrypted: bool) -> Bodies:
    """The inverse of `pack`.

    Raises:
        DecryptionError: it was sealed with another secret key.
    """
    packed = decrypt_bytes(stored, PURPOSE) if encrypted else stored
    return _decoder.decode(zlib.decompress(packed[1:]) if packed[:1] == _DEFLATED else packed[1:])
