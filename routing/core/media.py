"""Telling what a file is from how it begins: names and declared types are the sender's word only."""

from __future__ import annotations

import re
from typing import Final

_IMAGES: Final[tuple[tuple[str, re.Pattern[bytes]], ...]] = (
    ("image/png", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("image/jpeg", re.compile(rb"\xff\xd8\xff")),
    ("image/gif", re.compile(rb"GIF8[79]a")),
    ("image/webp", re.compile(rb"RIFF....WEBP", re.DOTALL)),
)
_AUDIO: Final[tuple[re.Pattern[bytes], ...]] = (
    re.compile(rb"(?:RIFF|RF64)....WAVE", re.DOTALL),
    re.compile(rb"ID3"),  # MP3 with a title
    re.compile(rb"\xff[\xe2-\xff]"),  # a frame of MPEG audio (MP3, MPGA), or AAC
    re.compile(rb"fLaC"),
    re.compile(rb"OggS"),
    re.compile(rb"....ftyp", re.DOTALL),  # MP4, M4A
    re.compile(rb"\x1a\x45\xdf\xa3"),  # WebM
)
_MPEG_NAMES: Final = (".mp3", ".mpga", ".mpeg")
_MPEG_FRAME: Final = re.compile(rb"\xff[\xe2-\xff]")


def image_type(head: bytes) -> str | None:
    """The media type of an image that begins like this: PNG, JPEG, GIF or WebP; None for anything else."""
    return next((media_type for media_type, magic in _IMAGES if magic.match(head)), None)


def is_audio(head: bytes, filename: str) -> bool:
    """It begins like WAV, MP3, FLAC, Ogg, MP4, M4A or WebM.

    Some MP3 files begin with rubbish, and decoders find the first frame all the same: for these the name counts too.
    """
    if any(magic.match(head) for magic in _AUDIO):
        return True
    return filename.lower().endswith(_MPEG_NAMES) and bool(_MPEG_FRAME.search(head))
