"""A Whisper model in CTranslate2's format: `/v1/audio/transcriptions` and `/v1/audio/translations`.

https://platform.openai.com/docs/api-reference/audio, https://github.com/SYSTRAN/faster-whisper
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from faster_whisper import WhisperModel
from faster_whisper.audio import decode_audio

from nodes.runtime.engines.own import captions
from nodes.runtime.engines.own.captions import Heard
from nodes.runtime.engines.own.forms import Upload, read_upload
from nodes.runtime.engines.own.serving import Stopped, arguments, event, serve, stream, work
from nodes.runtime.serving.http import Refused, Request, Response, Route

SAMPLES_A_SECOND: Final = 16_000
TRUE: Final = frozenset({"true", "1", "yes"})


@dataclass(frozen=True, slots=True)
class Wish:
    """What a request asks for. `task` is transcribe or translate."""

    sound: bytes
    task: str
    language: str | None
    prompt: str | None
    temperature: float
    format: str
    words: bool
    streamed: bool


def read_wish(form: Upload, task: str) -> Wish:
    """Raises: Refused (400)."""
    wanted = form.text("response_format", "json")
    if wanted not in captions.FORMATS:
        known = ", ".join(captions.FORMATS)
        raise Refused(400, "invalid_value", f"'response_format' is one of {known}.", param="response_format")
    return Wish(
        sound=form.file("file"),
        task=task,
        language=form.text("language") or None,
        prompt=form.text("prompt") or None,
        temperature=_temperature(form.text("temperature", "0")),
        format=wanted,
        words="word" in form.texts("timestamp_granularities"),
        streamed=form.text("stream").lower() in TRUE,
    )


def _temperature(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise Refused(400, "invalid_value", "'temperature' must be from 0 to 1.", param="temperature")
    return value


class Listener:
    """One model, loaded. One recording at a time."""

    def __init__(self, path: str, device: str, threads: int) -> None:
        self._model = WhisperModel(path, device=device, cpu_threads=threads, local_files_only=True)
        self._lock = threading.Lock()

    def check(self, wish: Wish) -> None:
        """Raises: Refused (400), where the model cannot do what is asked."""
        if wish.task == "translate" and not self._model.model.is_multilingual:
            raise Refused(400, "model_capability_mismatch", "This model hears English alone, and cannot translate.")
        if wish.language and wish.language not in self._model.supported_languages:
            raise Refused(400, "invalid_value", "This model does not know that language.", param="language")

    def hear(self, wish: Wish, gone: threading.Event) -> Heard:
        """All of it. Raises: Refused (400), Stopped."""
        pieces, told = self._begin(wish)
        heard = Heard(wish.task, told.language, told.duration)
        for piece in self._follow(pieces, gone):
            heard.segments.append(piece)
        return heard

    def stream(self, wish: Wish, gone: threading.Event) -> Iterator[bytes]:
        """Server-sent events, a piece at a time. Raises: Refused (400), Stopped."""
        pieces, told = self._begin(wish)
        heard = Heard(wish.task, told.language, told.duration)
        for piece in self._follow(pieces, gone):
            heard.segments.append(piece)
            yield event({"type": "transcript.text.delta", "delta": piece.text})
        yield event({"type": "transcript.text.done", "text": heard.text, "usage": heard.usage})

    def _begin(self, wish: Wish) -> tuple[Any, Any]:
        try:
            samples = decode_audio(io.BytesIO(wish.sound), sampling_rate=SAMPLES_A_SECOND)
        except Exception as error:  # whatever FFmpeg makes of bytes that are no sound
            raise Refused(400, "invalid_value", "'file' is not sound that can be read.", param="file") from error
        return self._model.transcribe(  # type: ignore[no-any-return]  # an untyped library
            samples,
            task=wish.task,
            language=wish.language,
            initial_prompt=wish.prompt,
            temperature=wish.temperature or [0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
            word_timestamps=wish.words,
        )

    def _follow(self, pieces: Any, gone: threading.Event) -> Iterator[Any]:
        with self._lock:
            for piece in pieces:
                if gone.is_set():
                    raise Stopped
                yield piece


def main() -> None:
    options = arguments(__doc__ or "", device="cpu", threads="0")
    listener = Listener(options.model, options.device, int(options.threads))

    async def answer(request: Request, task: str) -> Response:
        wish = read_wish(await read_upload(request), task)
        listener.check(wish)
        if wish.streamed:
            events = stream(request, lambda gone: listener.stream(wish, gone))
            return Response(media_type="text/event-stream", pieces=events)
        heard = await work(request, lambda gone: listener.hear(wish, gone))
        body, media_type = captions.written(heard, wish.format, words=wish.words)
        return Response(body=body, media_type=media_type)

    serve(
        [
            Route("POST", "/v1/audio/transcriptions", partial(answer, task="transcribe")),
            Route("POST", "/v1/audio/translations", partial(answer, task="translate")),
        ],
        options.port,
    )


if __name__ == "__main__":
    main()
