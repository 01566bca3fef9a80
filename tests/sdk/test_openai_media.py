"""The official Python SDK of OpenAI, unchanged, for sound, pictures, and pictures in a conversation."""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest
from openai import AsyncOpenAI

from nodes.fake.media import PNG
from tests.routing.conftest import Fleet

TEXT = "fake-0 fake-1 fake-2 fake-3 fake-4 "
WAV = b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(200_000)
EARS, VOICE, BRUSH, EYES = "whisper-1", "tts-1", "dall-e-3", "gpt-4o"

# The SDK says so of calls that its makers would see gone; programs still make them.
deprecated = pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")


@pytest.fixture
async def client(fleet: Fleet) -> AsyncIterator[AsyncOpenAI]:
    await fleet.add(EARS, VOICE, BRUSH, EYES, "model-a")
    async with AsyncOpenAI(base_url=f"{fleet.url}/v1", api_key=fleet.key, max_retries=0) as client:
        yield client


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "talk.wav"
    path.write_bytes(WAV)
    return path


async def test_transcription_of_a_file(client: AsyncOpenAI, recording: Path) -> None:
    heard = await client.audio.transcriptions.create(model=EARS, file=recording, language="en", temperature=0.2)
    assert heard.text == TEXT


async def test_transcription_of_bytes_in_every_format(client: AsyncOpenAI) -> None:
    file = ("talk.wav", io.BytesIO(WAV), "audio/wav")
    verbose = await client.audio.transcriptions.create(
        model=EARS, file=file, response_format="verbose_json", timestamp_granularities=["word", "segment"]
    )
    assert (verbose.text, verbose.duration, verbose.language) == (TEXT, 1.5, "english")
    assert await client.audio.transcriptions.create(model=EARS, file=file, response_format="text") == TEXT + "\n"
    subtitles = await client.audio.transcriptions.create(model=EARS, file=file, response_format="vtt")
    assert subtitles.startswith("WEBVTT")


async def test_transcription_as_it_grows(client: AsyncOpenAI, recording: Path) -> None:
    stream = await client.audio.transcriptions.create(model=EARS, file=recording, stream=True)
    events = [event async for event in stream]
    assert "".join(event.delta for event in events if event.type == "transcript.text.delta") == TEXT
    last = events[-1]
    assert last.type == "transcript.text.done"
    assert last.text == TEXT


@deprecated
async def test_translation(client: AsyncOpenAI, recording: Path) -> None:
    assert (await client.audio.translations.create(model=EARS, file=recording)).text == TEXT


async def test_speech_whole_and_as_it_is_made(client: AsyncOpenAI, tmp_path: Path) -> None:
    whole = await client.audio.speech.create(model=VOICE, voice="nova", input="Good morning.", response_format="wav")
    assert whole.response.headers["content-type"] == "audio/wav"
    path = tmp_path / "out.wav"
    async with client.audio.speech.with_streaming_response.create(
        model=VOICE, voice="nova", input="Good morning."
    ) as response:
        await response.stream_to_file(path)
    assert path.read_bytes() == whole.content
    assert whole.content.startswith(b"fake-0")


async def test_images_made_and_changed(client: AsyncOpenAI) -> None:
    made = await client.images.generate(model=BRUSH, prompt="a cat", n=2, response_format="b64_json")
    assert made.data is not None
    assert [base64.b64decode(image.b64_json or "") for image in made.data] == [PNG, PNG]
    linked = await client.images.generate(model=BRUSH, prompt="a cat", response_format="url")
    assert linked.data is not None
    assert linked.data[0].url == "https://images.example/fake.png"
    picture = ("cat.png", PNG, "image/png")
    changed = await client.images.edit(model=BRUSH, image=[picture, picture], mask=picture, prompt="with a hat", n=3)
    assert changed.data is not None
    assert len(changed.data) == 3


@deprecated
async def test_an_image_varied(client: AsyncOpenAI) -> None:
    varied = await client.images.create_variation(model=BRUSH, image=("cat.png", PNG, "image/png"))
    assert varied.data is not None


async def test_an_image_as_it_becomes_clear(client: AsyncOpenAI) -> None:
    stream = await client.images.generate(model=BRUSH, prompt="a cat", stream=True, partial_images=2)
    types = [event.type async for event in stream]
    assert types[0] == "image_generation.partial_image"
    assert types[-1] == "image_generation.completed"


async def test_a_picture_in_a_conversation(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model=EYES,
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {
                        "type": "image_url",
                        "image_url": {"url": f"data:image/png;base64,{base64.b64encode(PNG).decode()}"},
                    },
                ],
            }
        ],
    )
    assert answer.choices[0].message.content == TEXT


async def test_refusals_are_the_sdks_own_errors(client: AsyncOpenAI, recording: Path) -> None:
    with pytest.raises(openai.BadRequestError) as mismatch:
        await client.audio.transcriptions.create(model=VOICE, file=recording)
    assert (mismatch.value.code, mismatch.value.param) == ("model_capability_mismatch", "model")
    with pytest.raises(openai.BadRequestError) as no_audio:
        await client.audio.transcriptions.create(model=EARS, file=("notes.txt", b"just words"))
    assert no_audio.value.param == "file"
    with pytest.raises(openai.BadRequestError) as too_long:
        await client.audio.speech.create(model=VOICE, voice="nova", input="a" * 5000)
    assert too_long.value.code == "string_above_max_length"
    with pytest.raises(openai.NotFoundError):
        await client.images.generate(model="no-such-brush", prompt="a cat")
