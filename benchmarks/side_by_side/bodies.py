"""What is asked: a short question, a long prompt, a picture, a stream."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

SENTENCE: Final = "The quick brown fox keeps its promises to the lazy dog, most of them about load. "
# Base64 without a repeat short enough to be compressed away by anything on the way.
PICTURE: Final = "iVBORw0KGgoAAAANSUhEUgAA"


def text_of(size: int) -> str:
    return (SENTENCE * (size // len(SENTENCE) + 1))[:size]


def chat(content: object, **members: object) -> bytes:
    asked = {"model": "bench", "messages": [{"role": "user", "content": content}], **members}
    return json.dumps(asked, separators=(",", ":")).encode()


def all_bodies() -> dict[str, bytes]:
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE * (5_000_000 // 24)}"}}
    return {
        "1 KB": chat(text_of(900)),
        "100 KB": chat(text_of(100_000)),
        "5 MB": chat([{"type": "text", "text": "What is this?"}, picture]),
        "stream": chat(text_of(900), stream=True),
    }


def write(folder: Path) -> dict[str, Path]:
    """Each body as a file, for a load generator that reads files."""
    paths = {name: folder / f"{name.replace(' ', '')}.json" for name in all_bodies()}
    for name, body in all_bodies().items():
        paths[name].write_bytes(body)
    return paths
