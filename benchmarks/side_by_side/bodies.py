"""What is asked: a short question, a long prompt, a picture, a stream. The same bytes in every run."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

SEED: Final = 7
WORDS: Final = 20_000
LETTERS: Final = "etaoinshrdlucmfwypvbgk"
COMMONEST: Final = 3  # the larger, the less common are the commonest words (Zipf and Mandelbrot)
LEAST_WORD_BYTES: Final = 3  # with the space after it
PNG_HEAD: Final = b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR"
PICTURE_BYTES: Final = 3_750_000  # 5 MB as base64


def prose(size: int, dice: random.Random) -> str:
    """`size` characters of words as frequent as those of a language.

    It compresses as badly as prose does: zstd's first level leaves 42 % of 100 KB, as it does of the text in `docs/`.
    """
    weights = [1 / (rank + COMMONEST) for rank in range(WORDS)]
    return " ".join(dice.choices(vocabulary(), weights, k=size // LEAST_WORD_BYTES + 1))[:size]


@cache
def vocabulary() -> tuple[str, ...]:
    dice = random.Random(SEED)
    return tuple("".join(dice.choices(LETTERS, k=dice.randint(2, 9))) for _ in range(WORDS))


def picture() -> str:
    """In base64: how a PNG begins, which gateways look at, and random bytes: it is compressed already."""
    return base64.b64encode(PNG_HEAD + random.Random(SEED).randbytes(PICTURE_BYTES)).decode()


def chat(content: object, **members: object) -> bytes:
    asked = {"model": "bench", "messages": [{"role": "user", "content": content}], **members}
    return json.dumps(asked, separators=(",", ":")).encode()


@cache
def all_bodies() -> Mapping[str, bytes]:
    dice = random.Random(SEED)
    short, long = prose(900, dice), prose(100_000, dice)
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture()}"}}
    return {
        "1 KB": chat(short),
        "100 KB": chat(long),
        "5 MB": chat([{"type": "text", "text": "What is this?"}, image]),
        "stream": chat(short, stream=True),
    }


def write(folder: Path) -> dict[str, Path]:
    """Each body as a file, for a load generator that reads files."""
    paths = {name: folder / f"{name.replace(' ', '')}.json" for name in all_bodies()}
    for name, body in all_bodies().items():
        paths[name].write_bytes(body)
    return paths
