"""What the history keeps of a request's bytes: its words, and of pictures and sound their size alone."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from llmlb_site.lib import zstd
from routing.gateway.exchange import Exchange

CAPTURE_BYTES: Final = 256 * 1024
BLOCK_BYTES: Final = 12 * 1024
# A JSON string of this length without a character that Base64 does not have is no text of a person or a model.
BLOB_BYTES: Final = 1024
_BLOB: Final = re.compile(rb"(data:[\w./+;=-]{0,100},)?[A-Za-z0-9+/=_\\-]*")


def of_request(exchange: Exchange) -> tuple[bytes, bool]:
    """The body as the history keeps it, and whether it was longer. Of a form, what it held, without its files."""
    call = exchange.call
    if call is not None and call.form is not None:
        return msgspec.json.encode(call.form.note()), False
    return _words(exchange.body)


def begin_block(exchange: Exchange, piece: bytes) -> None:
    """Capture `piece`, about to be sent, as the first of a new block; the block before is compressed.

    A thousand streams hold what they have said until they are over, and their events repeat themselves.
    """
    begin = exchange.bytes_out
    if not piece or begin >= CAPTURE_BYTES or exchange.binary or not exchange.captures:
        return
    if exchange.captured:
        exchange.captured_blocks = (*exchange.captured_blocks, zstd.compress_fast(b"".join(exchange.captured)))
    exchange.captured = [piece]
    exchange.captured_until = min(begin + BLOCK_BYTES, CAPTURE_BYTES)


def of_answer(exchange: Exchange) -> tuple[bytes, bool]:
    """The answer as the history keeps it, and whether it was longer."""
    if exchange.binary:
        return msgspec.json.encode({"bytes": exchange.bytes_out}), False
    if exchange.bytes_out < BLOB_BYTES:  # within the first block
        return b"".join(exchange.captured), False
    captured = b"".join([*map(zstd.decompress, exchange.captured_blocks), *exchange.captured])
    body, truncated = _words(captured)
    return body, truncated or exchange.bytes_out > len(captured)


def without_blobs(body: bytes) -> bytes:
    """A JSON body, or events of JSON, in which each long Base64 string is replaced by a note of its length."""
    kept: list[bytes] = []
    begun = start = 0  # of what is kept as it is; of the string at hand
    while len(body) - start >= BLOB_BYTES:
        short = body.rfind(b'"', start, start + BLOB_BYTES)
        if short >= 0:  # whatever ends here, or before, is not as long
            start = short + 1
            continue
        end = body.find(b'"', start + BLOB_BYTES)
        stop = end if end >= 0 else len(body)
        note = _note(body, start, stop)
        if note is not None:
            kept += (body[begun:start], note)
            begun = stop
        start = stop + 1
    return b"".join((*kept, body[begun:])) if kept else body


def _note(body: bytes, start: int, stop: int) -> bytes | None:
    """What stands for this string, if it is a blob. It is not copied: a picture has millions of characters."""
    match = _BLOB.fullmatch(body, start, start + BLOB_BYTES)  # its beginning tells
    if match is None or body.find(b" ", start, stop) >= 0:
        return None
    label = match[1] or b""
    return b"%s[%d characters]" % (label, stop - start - len(label))


def _words(body: bytes) -> tuple[bytes, bool]:
    """Without blobs, and as much of it as is kept; and whether that is less."""
    if len(body) < BLOB_BYTES:
        return body, False
    body = without_blobs(body)
    return body[:CAPTURE_BYTES], len(body) > CAPTURE_BYTES
