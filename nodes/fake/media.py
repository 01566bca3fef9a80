"""What a fake node answers about sound and pictures: always the same for the same request."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from nodes.fake.answers import Answer, Asked
from nodes.fake.behaviour import SeenRequest
from nodes.fake.connection import Raw

TEXTS: Final = frozenset({"/v1/audio/transcriptions", "/v1/audio/translations"})
SPEECH: Final = "/v1/audio/speech"
IMAGES: Final = frozenset({"/v1/images/generations", "/v1/images/edits", "/v1/images/variations"})
PATHS: Final = TEXTS | IMAGES | {SPEECH}
PLAIN: Final = {"text": "text/plain; charset=utf-8", "srt": "text/plain; charset=utf-8", "vtt": "text/vtt"}
AUDIO_TYPES: Final = {"opus": "audio/opus", "aac": "audio/aac", "flac": "audio/flac", "wav": "audio/wav"}
PNG: Final = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
_NAME: Final = re.compile(rb'[; ]name="?([^";\r]*)')


def parse(request: SeenRequest) -> Asked | None:
    """The request, from JSON or from a form; None where it is neither. A file of a form is given by its size."""
    try:
        if "multipart/" in request.headers.get("content-type", ""):
            return Asked(request.path, dict(_fields(request)))
        document = json.loads(request.body)
    except (ValueError, RecursionError):
        return None
    return Asked(request.path, document) if isinstance(document, dict) else None


def _fields(request: SeenRequest) -> Iterator[tuple[str, Any]]:
    """Read in another way than the gateway does it, so that the two cannot be wrong together."""
    boundary = request.headers["content-type"].partition("boundary=")[2].strip('"').encode()
    for part in request.body.split(b"--" + boundary)[1:-1]:
        head, _, value = part.partition(b"\r\n\r\n")
        name = _NAME.search(head)
        if name is None:
            raise ValueError("a part without a name")
        size = len(value) - 2
        yield name[1].decode(), size if b"filename" in head else value[:size].decode()


@dataclass(frozen=True)
class MediaAnswer(Answer):
    """An answer of sound, of pictures, or of what was said in a sound."""

    @property
    def is_sound(self) -> bool:
        """Sound is sent as it is made, in chunks, whether or not events were asked for."""
        return self.asked.path == SPEECH

    @property
    def streams(self) -> bool:
        return self.is_sound or str(self.asked.body.get("stream")).lower() == "true"

    @property
    def stream_type(self) -> str:
        if self.is_sound and self.asked.body.get("stream_format") != "sse":
            return AUDIO_TYPES.get(str(self.asked.body.get("response_format")), "audio/mpeg")
        return "text/event-stream"

    def document(self, *, finished: bool = True) -> Any:
        if self.asked.path in IMAGES:
            return {"created": 1_700_000_000, "data": [self._image()] * self._wanted, **self._usage}
        text = "".join(self.token(number) for number in range(self.count))
        kind = str(self.asked.body.get("response_format", "json"))
        if kind in PLAIN:
            start = {"text": "", "srt": "1\n", "vtt": "WEBVTT\n\n"}[kind]
            return Raw(f"{start}{text}\n".encode(), PLAIN[kind])
        more = {"duration": 1.5, "language": "english", "segments": []} if kind == "verbose_json" else {}
        return {"text": text, **more, **self._usage}

    def events(self) -> Iterator[bytes]:
        for number in range(self.count):
            yield self._piece_of(number)

    def tail(self, *, finished: bool = True) -> bytes:
        if self.stream_type != "text/event-stream":
            return b"\0end"
        if self.is_sound:
            last: dict[str, Any] = {"type": "speech.audio.done", **self._usage}
        elif self.asked.path in IMAGES:
            last = {"type": "image_generation.completed", **self._image(), **self._usage}
        else:
            text = "".join(self.token(number) for number in range(self.count))
            last = {"type": "transcript.text.done", "text": text, **self._usage}
        return _event(last) if finished else b": the end\n\n"

    def _piece_of(self, number: int) -> bytes:
        sound = self.token(number).encode() * 64
        if self.stream_type != "text/event-stream":
            return sound
        if self.is_sound:
            return _event({"type": "speech.audio.delta", "audio": base64.b64encode(sound).decode()})
        if self.asked.path in IMAGES:
            return _event({"type": "image_generation.partial_image", "partial_image_index": number, **self._image()})
        return _event({"type": "transcript.text.delta", "delta": self.token(number)})

    @property
    def _wanted(self) -> int:
        return int(self.asked.body.get("n") or 1)

    @property
    def _usage(self) -> dict[str, Any]:
        counts = {"type": "tokens", "input_tokens": 7, "output_tokens": self.count, "total_tokens": 7 + self.count}
        return {"usage": counts} if self.tells_usage else {}

    def _image(self) -> dict[str, str]:
        if self.asked.body.get("response_format") == "url":
            return {"url": f"https://images.example/{self.name}.png"}
        return {"b64_json": base64.b64encode(PNG).decode()}


def _event(document: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (str(document["type"]).encode(), json.dumps(document).encode())
