"""A Piper voice: `/v1/audio/speech`. https://github.com/OHF-Voice/piper1-gpl/blob/main/docs/API_PYTHON.md"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from piper import PiperVoice, SynthesisConfig

from nodes.runtime.engines.base import has_module
from nodes.runtime.engines.own import audio
from nodes.runtime.engines.own.serving import Stopped, arguments, serve, stream, work
from nodes.runtime.serving.http import Refused, Request, Response, Route

MAX_CHARACTERS: Final = 4096  # as OpenAI's
SPEEDS: Final = (0.25, 4.0)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a request asks for."""

    text: str
    format: str
    media_type: str
    speed: float
    speaker: int | None


def read_wish(asked: dict[str, Any], speakers: dict[str, int]) -> Wish:
    """Raises: Refused (400)."""
    text = asked.get("input")
    if not isinstance(text, str) or not text.strip():
        raise Refused(400, "invalid_value", "'input' must be a text.", param="input")
    if len(text) > MAX_CHARACTERS:
        message = f"'input' has {len(text)} characters; {MAX_CHARACTERS} are allowed."
        raise Refused(400, "string_above_max_length", message, param="input")
    wanted = asked.get("response_format") or ("mp3" if has_module("av") else "wav")
    if not isinstance(wanted, str):
        raise Refused(400, "invalid_value", "'response_format' must be a text.", param="response_format")
    if asked.get("stream_format", "audio") != "audio":
        raise Refused(400, "unsupported_value", "'stream_format' is audio here.", param="stream_format")
    return Wish(text, wanted, audio.media_type(wanted), _speed(asked.get("speed")), _speaker(asked, speakers))


def _speed(given: Any) -> float:
    if given is None:
        return 1.0
    low, high = SPEEDS
    if isinstance(given, bool) or not isinstance(given, int | float) or not low <= given <= high:
        raise Refused(400, "invalid_value", f"'speed' must be from {low} to {high}.", param="speed")
    return float(given)


def _speaker(asked: dict[str, Any], speakers: dict[str, int]) -> int | None:
    """The speaker that `voice` names. A name of another server's voice (`alloy`) is the model's first speaker."""
    voice = asked.get("voice")
    return speakers.get(voice) if isinstance(voice, str) else None


class Speaker:
    """One voice, loaded. One text at a time: the library is not made for more."""

    def __init__(self, path: Path) -> None:
        self._voice = PiperVoice.load(path)
        self._lock = threading.Lock()
        self.speakers: dict[str, int] = dict(self._voice.config.speaker_id_map or {})
        self.rate: int = self._voice.config.sample_rate

    def say(self, wish: Wish, gone: threading.Event) -> Iterator[bytes]:
        """16-bit samples, a sentence at a time. Raises: Stopped."""
        how = SynthesisConfig(length_scale=self._length(wish.speed), speaker_id=wish.speaker)
        with self._lock:
            for sentence in self._voice.synthesize(wish.text, syn_config=how):
                if gone.is_set():
                    raise Stopped
                yield sentence.audio_int16_bytes

    def _length(self, speed: float) -> float:
        return float(self._voice.config.length_scale or 1.0) / speed


def main() -> None:
    options = arguments(__doc__ or "")
    speaker = Speaker(Path(options.model))

    async def speech(request: Request) -> Response:
        asked = json.loads(await request.body())
        wish = read_wish(asked, speaker.speakers)
        if wish.format == "pcm":  # needs no head that tells its length, and so can be heard while it is made
            return Response(media_type=wish.media_type, pieces=stream(request, lambda gone: speaker.say(wish, gone)))

        def make(gone: threading.Event) -> bytes:
            return audio.encode(b"".join(speaker.say(wish, gone)), speaker.rate, wish.format)

        return Response(body=await work(request, make), media_type=wish.media_type)

    serve([Route("POST", "/v1/audio/speech", speech)], options.port)


if __name__ == "__main__":
    main()
