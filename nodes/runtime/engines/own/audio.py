"""Sound into the formats of OpenAI's speech API, with the libraries of FFmpeg that the `av` package holds."""

from __future__ import annotations

import io
import wave
from dataclasses import dataclass
from typing import Final

from nodes.runtime.engines.base import has_module
from nodes.runtime.serving.http import Refused


@dataclass(frozen=True, slots=True)
class Encoding:
    """One format: its media type, and FFmpeg's names of container, codec and the sample rate it wants (0: any)."""

    media_type: str
    container: str
    codec: str
    rate: int = 0


ENCODINGS: Final = {
    "mp3": Encoding("audio/mpeg", "mp3", "libmp3lame"),
    "opus": Encoding("audio/ogg", "ogg", "libopus", 48_000),
    "aac": Encoding("audio/aac", "adts", "aac"),
    "flac": Encoding("audio/flac", "flac", "flac"),
}
PLAIN: Final = {"wav": "audio/wav", "pcm": "audio/pcm"}


def media_type(name: str) -> str:
    """Of a format that can be made here. Raises: Refused (400)."""
    if name in PLAIN:
        return PLAIN[name]
    if name not in ENCODINGS:
        known = ", ".join([*ENCODINGS, *PLAIN])
        raise Refused(400, "invalid_value", f"'response_format' is one of {known}.", param="response_format")
    if not has_module("av"):
        message = f"This node cannot make {name}: the Python package av is not installed. It makes wav and pcm."
        raise Refused(400, "unsupported_value", message, param="response_format")
    return ENCODINGS[name].media_type


def encode(samples: bytes, rate: int, name: str) -> bytes:
    """16-bit little-endian samples of one channel, `rate` a second, in the format of that name."""
    if name == "pcm":
        return samples
    if name == "wav":
        return _wav(samples, rate)
    return _by_ffmpeg(samples, rate, ENCODINGS[name])


def _wav(samples: bytes, rate: int) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(samples)
    return file.getvalue()


def _by_ffmpeg(samples: bytes, rate: int, encoding: Encoding) -> bytes:
    import av  # tens of megabytes, for those who ask for these formats

    file = io.BytesIO()
    source = io.BytesIO(_wav(samples, rate))
    with av.open(source) as read, av.open(file, "w", format=encoding.container) as written:
        track = written.add_stream(encoding.codec, rate=encoding.rate or rate)
        track.layout = "mono"
        resampler = av.AudioResampler(format=track.format, layout="mono", rate=track.rate)
        for frame in read.decode(audio=0):
            for part in resampler.resample(frame):
                written.mux(track.encode(part))
        for part in resampler.resample(None):
            written.mux(track.encode(part))
        written.mux(track.encode(None))
    return file.getvalue()
