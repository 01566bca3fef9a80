"""What was heard, in the formats of OpenAI's transcription API: JSON, plain text, and two kinds of subtitles.

https://www.w3.org/TR/webvtt1/; SubRip has no specification, and differs by a comma and a number.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final

FORMATS: Final = ("json", "text", "srt", "verbose_json", "vtt")
TEXT: Final = "text/plain; charset=utf-8"


@dataclass(slots=True)
class Heard:
    """One recording: what was asked for, the language, its length in seconds, and the pieces that Whisper made of it.

    A piece has `id`, `seek`, `start`, `end` (seconds), `text`, `tokens`, `temperature`, `avg_logprob`,
    `compression_ratio`, `no_speech_prob` and, where they were asked for, `words`.
    """

    task: str
    language: str
    seconds: float
    segments: list[Any] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.segments).strip()

    @property
    def usage(self) -> dict[str, Any]:
        return {"type": "duration", "seconds": round(self.seconds)}


def written(heard: Heard, style: str, *, words: bool) -> tuple[bytes, str]:
    """The answer's body and media type."""
    if style == "text":
        return (heard.text + "\n").encode(), TEXT
    if style == "srt":
        return _subtitles(heard, comma=True).encode(), "application/x-subrip"
    if style == "vtt":
        return ("WEBVTT\n\n" + _subtitles(heard, comma=False)).encode(), "text/vtt"
    document: dict[str, Any] = {"text": heard.text, "usage": heard.usage}
    if style == "verbose_json":
        document = {**_verbose(heard), **document}
        if words:
            document["words"] = [_word(word) for piece in heard.segments for word in piece.words or ()]
    return json.dumps(document, ensure_ascii=False).encode(), "application/json"


def _verbose(heard: Heard) -> dict[str, Any]:
    return {
        "task": heard.task,
        "language": heard.language,
        "duration": heard.seconds,
        "segments": [_segment(piece) for piece in heard.segments],
    }


def _segment(piece: Any) -> dict[str, Any]:
    names = ("id", "seek", "start", "end", "text", "tokens", "temperature", "avg_logprob", "compression_ratio")
    return {name: getattr(piece, name) for name in (*names, "no_speech_prob")}


def _word(word: Any) -> dict[str, Any]:
    return {"word": word.word.strip(), "start": word.start, "end": word.end}


def _subtitles(heard: Heard, *, comma: bool) -> str:
    lines = []
    for number, piece in enumerate(heard.segments, start=1):
        head = f"{number}\n" if comma else ""
        lines.append(f"{head}{_clock(piece.start, comma)} --> {_clock(piece.end, comma)}\n{piece.text.strip()}\n\n")
    return "".join(lines)


def _clock(seconds: float, comma: bool) -> str:
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    minutes, left = divmod(whole, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{left:02}{',' if comma else '.'}{thousandths:03}"
