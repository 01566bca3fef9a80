"""OpenAI's audio: speech from text, and text from speech (transcriptions; translations, which are in English).

https://platform.openai.com/docs/api-reference/audio, and SPEC-617247d2 for the limits.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec

from llmlb_site.lib.sse import data_of
from llmlb_site.lib.upstream.faults import MalformedFault
from routing.core.errors import parameter_invalid
from routing.core.media import is_audio
from routing.core.table import NodeEntry
from routing.core.usage import Tokens
from routing.protocols.base import OPENAI, Answer, Api, Call, Envelope, Plan, Range, envelope_reader
from routing.protocols.checks import check_choice, check_text
from routing.protocols.forms import form_of, read_form, upload
from routing.protocols.passing import PassedStream, read_usage, renamed, restoring, tells_error, usage_in

MAX_INPUT_CHARACTERS: Final = 4096
SPEECH_FORMATS: Final = ("mp3", "opus", "aac", "flac", "wav", "pcm")
AUDIO_FORMATS: Final = "flac, m4a, mp3, mp4, mpeg, mpga, oga, ogg, wav, webm"
# Answers that are text as it is; all others are JSON.
PLAIN_FORMATS: Final = frozenset({"text", "srt", "vtt"})
TRANSCRIPT_FORMATS: Final = ("json", "text", "srt", "verbose_json", "vtt", "diarized_json")
TRANSLATION_FORMATS: Final = ("json", "text", "srt", "verbose_json", "vtt")

_TYPED: Final = re.compile(rb'"type"\s*:\s*"transcript\.')
_TRANSCRIBED: Final = re.compile(rb'"type"\s*:\s*"transcript\.text\.done"')
_CHOICES: Final = re.compile(rb'"choices"\s*:\s*\[')
_FINISHED: Final = re.compile(rb'"finish_reason"\s*:\s*"')
_SPOKEN: Final = re.compile(rb'"type"\s*:\s*"speech\.audio\.done"')
_WEB_PAGE: Final = re.compile(rb"\s*<(!doctype|html)", re.I)


class _Transcript(msgspec.Struct):
    text: str
    usage: msgspec.Raw = msgspec.Raw(b"null")


_transcript: Final = msgspec.json.Decoder(_Transcript)


class SpeechEnvelope(Envelope):
    """What concerns the gateway of a request for speech."""

    input: Any = None
    speed: Any = None
    response_format: Any = None
    stream_format: Any = None


class TranscriptStream:
    """A transcript as it grows. Whole once the API's last event came, or, of a node that streams completions, a
    `finish_reason`. A node that knows neither (several whisper servers send bare segments) just ends.
    """

    __slots__ = ("_has_mark", "_marked", "deltas", "failed", "tokens")

    def __init__(self) -> None:
        self._has_mark = False
        self._marked = False
        self.failed = False
        self.tokens: Tokens | None = None
        self.deltas = 0

    @property
    def whole(self) -> bool:
        return self._marked or (self.deltas > 0 and not self._has_mark)

    def take(self, event: bytes) -> bytes:
        data = data_of(event)
        if not data:
            return event
        self._has_mark = self._has_mark or bool(_TYPED.search(data) or _CHOICES.search(data))
        if _TRANSCRIBED.search(data) or _FINISHED.search(data):
            self._marked = True
            self.tokens = usage_in(data) or self.tokens
        self.failed = self.failed or tells_error(data)
        self.deltas += 1
        return event

    def end(self) -> bytes:
        return b""


def _open_speech() -> PassedStream:
    """Speech as events of Base64."""
    return PassedStream(lambda data: _SPOKEN.search(data) is not None)


def _read_transcript(body: bytes) -> Answer:
    try:
        answer = _transcript.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise MalformedFault("the answer is not a transcript") from None
    return Answer(body, read_usage(answer.usage), lambda: (answer.text,))


def _read_text(body: bytes) -> Answer:
    """Text, subtitles: any text, also none at all where nobody spoke."""
    if _WEB_PAGE.match(body):
        raise MalformedFault("the answer is a web page")
    return Answer(body, None, lambda: (body.decode(errors="replace"),))


# --- speech


_read_speech_envelope: Final = envelope_reader(SpeechEnvelope)


def _read_speech(body: bytes) -> Envelope:
    """Speech is streamed by its `stream_format`, where all others have a `stream`."""
    envelope = _read_speech_envelope(body)
    assert isinstance(envelope, SpeechEnvelope)
    envelope.stream = envelope.stream_format == "sse"
    return envelope


def _check_speech(envelope: Envelope) -> None:
    assert isinstance(envelope, SpeechEnvelope)
    check_text("input", envelope.input, MAX_INPUT_CHARACTERS)
    check_choice("response_format", envelope.response_format, SPEECH_FORMATS)
    check_choice("stream_format", envelope.stream_format, ("audio", "sse"))


def _plan_speech(call: Call, node: NodeEntry) -> Plan:
    return Plan(call.path, renamed(call), restoring(call, _read_text), _open_speech, opaque=True)


def _speech_texts(body: bytes) -> Sequence[str]:
    envelope = _read_speech(body)
    assert isinstance(envelope, SpeechEnvelope)
    return (envelope.input,)


# --- transcriptions and translations


def _inspect_transcription(call: Call) -> Sequence[str]:
    return _inspect(call, TRANSCRIPT_FORMATS)


def _inspect_translation(call: Call) -> Sequence[str]:
    return _inspect(call, TRANSLATION_FORMATS)


def _inspect(call: Call, formats: Sequence[str]) -> Sequence[str]:
    form = form_of(call)
    check_choice("response_format", form.text("response_format"), formats)
    file = form.file("file")
    if not is_audio(file.head, file.filename or ""):
        raise parameter_invalid("file", f"The file is not audio. Supported formats: {AUDIO_FORMATS}.", "invalid_file")
    return ()


def _plan_transcript(call: Call, node: NodeEntry) -> Plan:
    plain = form_of(call).text("response_format") in PLAIN_FORMATS
    return Plan(call.path, upload(call), _read_text if plain else _read_transcript, TranscriptStream)


SPEECH: Final = Api(
    kind="speech",
    path="/v1/audio/speech",
    capability="text-to-speech",
    ranges={"speed": Range(0.25, 4)},
    plan=_plan_speech,
    prompt_texts=_speech_texts,
    dialect=OPENAI,
    read_envelope=_read_speech,
    check=_check_speech,
)
TRANSCRIPTIONS: Final = Api(
    kind="transcription",
    path="/v1/audio/transcriptions",
    capability="speech-to-text",
    ranges={"temperature": Range(0, 1)},
    plan=_plan_transcript,
    prompt_texts=lambda body: (),
    dialect=OPENAI,
    read_form=read_form,
    inspect=_inspect_transcription,
)
TRANSLATIONS: Final = replace(
    TRANSCRIPTIONS, kind="translation", path="/v1/audio/translations", inspect=_inspect_translation
)

APIS: Final = {api.path: api for api in (SPEECH, TRANSCRIPTIONS, TRANSLATIONS)}
