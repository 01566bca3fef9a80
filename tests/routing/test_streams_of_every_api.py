"""A hundred streams at once of each API, native and translated: nothing lost, nothing mixed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from nodes.fake_node import Behaviour
from tests.routing.conftest import Fleet, bearer

MESSAGES = [{"role": "user", "content": "hello"}]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": MESSAGES},
    "/v1/completions": {"prompt": "hello"},
    "/v1/responses": {"input": "hello"},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 100},
}
# The mark that each API puts at the very end of a whole answer.
ENDS = {
    "/v1/chat/completions": "data: [DONE]",
    "/v1/completions": "data: [DONE]",
    "/v1/responses": "response.completed",
    "/v1/messages": "message_stop",
}
CHUNKS = 12


WAV = b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(range(256)) * 40


async def speech(fleet: Fleet) -> httpx.Response:
    body = {"model": "tts-1", "input": "Good morning.", "voice": "nova"}
    return await fleet.client.post("/v1/audio/speech", json=body, headers=bearer(fleet.key))


async def transcription(fleet: Fleet) -> httpx.Response:
    fields = {"model": "whisper-1", "stream": "true"}
    return await fleet.client.post(
        "/v1/audio/transcriptions", data=fields, files={"file": ("talk.wav", WAV)}, headers=bearer(fleet.key)
    )


async def image(fleet: Fleet) -> httpx.Response:
    body = {"model": "gpt-image-1", "prompt": "a cat", "stream": True, "partial_images": 2}
    return await fleet.client.post("/v1/images/generations", json=body, headers=bearer(fleet.key))


@pytest.mark.parametrize("ask", [speech, transcription, image])
async def test_a_hundred_of_sound_and_pictures(fleet: Fleet, ask: Callable[[Fleet], Awaitable[httpx.Response]]) -> None:
    behaviour = Behaviour(chunks=CHUNKS, chunk_interval=0.005)
    await fleet.add("tts-1", "whisper-1", "gpt-image-1", limit=0, behaviour=behaviour)
    alone = await ask(fleet)
    assert alone.status_code == 200, alone.text
    assert len(alone.content) > 100
    together = await asyncio.gather(*[ask(fleet) for _ in range(100)])
    assert {response.content for response in together} == {alone.content}
    assert {entry.outcome for entry in await fleet.settled(101)} == {"success"}
    assert not fleet.engine.state.live.in_flight


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("path", BODIES)
async def test_a_hundred_at_once(fleet: Fleet, path: str, native: bool) -> None:
    behaviour = Behaviour(chunks=CHUNKS, chunk_interval=0.005)
    for number in range(4):  # each says its own name in every token
        apis = {"apis": [path], "row": {"native_apis": [path]}} if native else {}
        await fleet.add(f"model-{number}", limit=0, behaviour=behaviour, name=f"voice{number}", **apis)

    async def one(number: int) -> str:
        body = {"model": f"model-{number % 4}", "stream": True, **BODIES[path]}
        headers = {**bearer(fleet.key), "anthropic-version": "2023-06-01"}
        response = await fleet.client.post(path, json=body, headers=headers)
        assert response.status_code == 200, response.text
        return response.text

    texts = await asyncio.gather(*[one(number) for number in range(100)])
    for number, text in enumerate(texts):
        said = "".join(re.findall(r'"(?:text|content|delta)": ?"([^"]*)"', text))
        assert set(re.findall(r"voice(\d)-", said)) == {str(number % 4)}
        tokens = [int(token) for token in re.findall(rf"voice{number % 4}-(\d+) ", said)]
        assert tokens[:CHUNKS] == list(range(CHUNKS))
        assert any(ENDS[path] in event for event in text.strip().split("\n\n")[-2:])
    assert {entry.outcome for entry in await fleet.settled(100)} == {"success"}
    assert not fleet.engine.state.live.in_flight
