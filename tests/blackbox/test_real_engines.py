"""Speech, hearing and embeddings of a node with real models: what OpenAI's clients may ask for."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import struct
import wave
from collections.abc import Iterator

import httpx
import pytest

from scripts import demo_models
from scripts.demo import EMBEDDING_MODEL, HEARING_MODEL, MODELS_DIR, VOICE
from tests.blackbox.test_real_nodes import SAID, words_of
from tests.support.node_server import NodeServer, aged

PACKAGES = ("faster_whisper", "piper", "onnxruntime", "tokenizers", *demo_models.PACKAGES)
missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.real_node,
    pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}; see requirements-node.txt"),
]


@pytest.fixture(scope="module")
def node() -> Iterator[NodeServer]:
    _, media = demo_models.lay_out(MODELS_DIR)
    with NodeServer(aged(media), load_wait_secs=60, threads=1) as running:
        yield running


def say(node: NodeServer, text: str = SAID, **more: object) -> httpx.Response:
    return node.post("/v1/audio/speech", json={"model": VOICE, "voice": "alloy", "input": text, **more})


def hear(node: NodeServer, sound: bytes, path: str = "/v1/audio/transcriptions", **more: str) -> httpx.Response:
    files = {"file": ("sound.bin", sound, "application/octet-stream")}
    return node.post(path, data={"model": HEARING_MODEL, **more}, files=files)


def embed(node: NodeServer, given: object, **more: object) -> httpx.Response:
    return node.post("/v1/embeddings", json={"model": EMBEDDING_MODEL, "input": given, **more})


def seconds_of(sound: bytes) -> float:
    with wave.open(io.BytesIO(sound)) as file:
        return float(file.getnframes() / file.getframerate())


@pytest.mark.parametrize(
    ("wanted", "media_type"),
    [("mp3", "audio/mpeg"), ("opus", "audio/ogg"), ("aac", "audio/aac"), ("flac", "audio/flac"), ("wav", "audio/wav")],
)
def test_what_is_said_in_any_format_is_heard_again(node: NodeServer, wanted: str, media_type: str) -> None:
    spoken = say(node, response_format=wanted)
    assert (spoken.status_code, spoken.headers["content-type"]) == (200, media_type)
    heard = hear(node, spoken.content).json()
    assert words_of(heard["text"]) == words_of(SAID)
    assert heard["usage"]["type"] == "duration"


def test_samples_come_while_they_are_made(node: NodeServer) -> None:
    body = {"model": VOICE, "voice": "x", "input": " ".join([SAID] * 5), "response_format": "pcm"}
    with (
        httpx.Client(trust_env=False, timeout=60) as client,
        client.stream("POST", f"{node.url}/v1/audio/speech", json=body) as answer,
    ):
        pieces = list(answer.iter_raw())
    assert answer.headers["content-type"] == "audio/pcm"
    assert len(pieces) > 1
    assert sum(map(len, pieces)) % 2 == 0


def test_speed_changes_the_length(node: NodeServer) -> None:
    slow, fast = (seconds_of(say(node, response_format="wav", speed=speed).content) for speed in (0.5, 2))
    assert slow > 2 * fast


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": "x" * 4097}, "input"),
        ({"response_format": "midi"}, "response_format"),
        ({"speed": 5}, "speed"),
        ({"speed": "fast"}, "speed"),
        ({"stream_format": "sse"}, "stream_format"),
    ],
)
def test_speech_that_cannot_be_made_is_refused(node: NodeServer, asked: dict[str, object], param: str) -> None:
    refused = say(node, str(asked.pop("input", SAID)), **asked)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


def test_the_formats_of_what_was_heard(node: NodeServer) -> None:
    sound = say(node, response_format="wav").content
    assert words_of(hear(node, sound, response_format="text").text) == words_of(SAID)
    subtitles = hear(node, sound, response_format="srt")
    assert subtitles.headers["content-type"] == "application/x-subrip"
    assert subtitles.text.startswith("1\n00:00:0")
    assert hear(node, sound, response_format="vtt").text.startswith("WEBVTT\n\n00:00:0")
    told = hear(node, sound, response_format="verbose_json", **{"timestamp_granularities[]": "word"}).json()
    assert told["duration"] == pytest.approx(seconds_of(sound), abs=0.2)
    assert (told["task"], told["language"]) == ("transcribe", "en")
    assert [word["word"].strip(".,").lower() for word in told["words"]] == words_of(SAID)
    assert told["segments"][0]["text"].strip() == told["text"]


def test_what_is_heard_can_be_streamed(node: NodeServer) -> None:
    answer = hear(node, say(node).content, stream="true")
    assert answer.headers["content-type"] == "text/event-stream"
    events = [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line]
    assert {event["type"] for event in events[:-1]} == {"transcript.text.delta"}
    assert events[-1]["type"] == "transcript.text.done"
    assert "".join(event["delta"] for event in events[:-1]).strip() == events[-1]["text"]


def test_what_cannot_be_heard_is_refused(node: NodeServer) -> None:
    sound = say(node, "hi").content
    for answer, code in (
        (hear(node, b"no sound at all"), "invalid_value"),
        (hear(node, sound, response_format="pdf"), "invalid_value"),
        (hear(node, sound, temperature="hot"), "invalid_value"),
        (hear(node, sound, language="xx"), "invalid_value"),
        (hear(node, sound, "/v1/audio/translations"), "model_capability_mismatch"),
        (node.post("/v1/audio/transcriptions", json={"model": HEARING_MODEL}), "unsupported_media_type"),
    ):
        assert answer.json()["error"]["code"] == code
        assert answer.status_code in (400, 415)


def test_embeddings_mean_something_and_are_of_length_one(node: NodeServer) -> None:
    answer = embed(node, ["The sea is rough.", "Waves crash on the ocean.", "Tax law of 1986"]).json()
    sea, ocean, law = ([float(value) for value in each["embedding"]] for each in answer["data"])
    assert _product(sea, ocean) > 0.4 > _product(sea, law)
    assert _product(sea, sea) == pytest.approx(1, abs=1e-4)
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] > 10
    assert [each["index"] for each in answer["data"]] == [0, 1, 2]


def test_embeddings_in_base64_and_with_fewer_dimensions(node: NodeServer) -> None:
    plain = embed(node, "sea").json()["data"][0]["embedding"]
    packed = base64.b64decode(embed(node, "sea", encoding_format="base64").json()["data"][0]["embedding"])
    assert list(struct.unpack(f"<{len(packed) // 4}f", packed)) == pytest.approx(plain, abs=1e-6)
    short = embed(node, "sea", dimensions=64).json()["data"][0]["embedding"]
    assert len(short) == 64
    assert _product(short, short) == pytest.approx(1, abs=1e-4)


def test_many_texts_and_long_ones(node: NodeServer) -> None:
    texts = [f"text number {number}" for number in range(40)] + ["long " * 5000]
    assert len(embed(node, texts).json()["data"]) == 41
    alone = embed(node, texts[7]).json()["data"][0]["embedding"]
    assert _product(alone, embed(node, texts).json()["data"][7]["embedding"]) == pytest.approx(1, abs=1e-2)


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"given": []}, "input"),
        ({"given": [1, 2]}, "input"),
        ({"given": ["x"] * 2049}, "input"),
        ({"given": "x", "encoding_format": "hex"}, "encoding_format"),
        ({"given": "x", "dimensions": 0}, "dimensions"),
        ({"given": "x", "dimensions": 385}, "dimensions"),
    ],
)
def test_embeddings_that_cannot_be_made_are_refused(node: NodeServer, asked: dict[str, object], param: str) -> None:
    refused = embed(node, asked.pop("given"), **asked)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


def _product(one: list[float], other: list[float]) -> float:
    return sum(x * y for x, y in zip(one, other, strict=True))
