"""What was heard, in every format of OpenAI's API."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from nodes.runtime.engines.own.captions import Heard, written

WORD = SimpleNamespace(word=" Hello", start=0.0, end=0.5)


def piece(number: int, text: str, start: float, end: float) -> SimpleNamespace:
    return SimpleNamespace(
        id=number, seek=0, start=start, end=end, text=text, tokens=[1], temperature=0.0, avg_logprob=-0.1,
        compression_ratio=1.0, no_speech_prob=0.0, words=[WORD],
    )  # fmt: skip


@pytest.fixture
def heard() -> Heard:
    return Heard("transcribe", "en", 3661.5, [piece(1, " Hello.", 0.0, 1.25), piece(2, " 天気。", 3599.9996, 3661.5)])


def test_text_and_json(heard: Heard) -> None:
    assert written(heard, "text", words=False) == ("Hello. 天気。\n".encode(), "text/plain; charset=utf-8")
    body, media_type = written(heard, "json", words=False)
    assert media_type == "application/json"
    assert json.loads(body) == {"text": "Hello. 天気。", "usage": {"type": "duration", "seconds": 3662}}


def test_subtitles_count_hours_and_round_to_thousandths(heard: Heard) -> None:
    assert written(heard, "srt", words=False)[0].decode() == (
        "1\n00:00:00,000 --> 00:00:01,250\nHello.\n\n2\n01:00:00,000 --> 01:01:01,500\n天気。\n\n"
    )
    assert written(heard, "vtt", words=False)[0].decode() == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.250\nHello.\n\n01:00:00.000 --> 01:01:01.500\n天気。\n\n"
    )


def test_all_that_is_known(heard: Heard) -> None:
    told = json.loads(written(heard, "verbose_json", words=True)[0])
    assert (told["task"], told["language"], told["duration"]) == ("transcribe", "en", 3661.5)
    assert [segment["id"] for segment in told["segments"]] == [1, 2]
    assert told["words"] == [{"word": "Hello", "start": 0.0, "end": 0.5}] * 2
    assert "words" not in json.loads(written(heard, "verbose_json", words=False)[0])
