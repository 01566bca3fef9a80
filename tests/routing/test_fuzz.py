"""Whatever a client sends to any inference path: an answer in its dialect, no 500 of our own, no slot leaked."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest

from routing.protocols.registry import APIS
from tests.routing.conftest import Fleet, bearer

ROUNDS = 60
NAMES = (
    "model", "stream", "messages", "input", "prompt", "n", "temperature", "max_tokens", "tools", "tool_choice",
    "stream_options", "response_format", "encoding_format", "documents", "query", "voice", "size", "image",
    "instructions", "previous_response_id", "stop", "system", "content", "role", "type", "text", "image_url",
)  # fmt: skip
SCALARS: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**63, 2**70, 1e308, 0.5, "", "model-a", "天気", "\x00", "\ud800", "a" * 5000,
    "data:image/png;base64,AAAA", "user", "assistant", "base64",
)  # fmt: skip


def anything(dice: random.Random, depth: int = 0) -> Any:
    kind = dice.random()
    if depth > 4 or kind < 0.5:
        return dice.choice(SCALARS)
    if kind < 0.7:
        return [anything(dice, depth + 1) for _ in range(dice.randrange(4))]
    return {dice.choice(NAMES): anything(dice, depth + 1) for _ in range(dice.randrange(5))}


def body_of(dice: random.Random) -> bytes:
    value = anything(dice)
    if isinstance(value, dict) and dice.random() < 0.9:
        value["model"] = dice.choice(("model-a", "model-a", "model-a", anything(dice)))
    body = json.dumps(value).encode()
    if dice.random() < 0.15:
        position = dice.randrange(len(body) + 1)
        body = body[:position] + dice.randbytes(3) + body[position:]
    return body


@pytest.mark.parametrize("path", sorted(APIS))
async def test_anything_gets_an_answer(fleet: Fleet, path: str) -> None:
    await fleet.add("model-a", limit=0)
    dice = random.Random(path)
    headers = {**bearer(fleet.key), "anthropic-version": "2023-06-01"}
    bodies = [body_of(dice) for _ in range(ROUNDS)]
    types = ("application/json", "multipart/form-data; boundary=x", "text/plain")

    async def ask(body: bytes) -> None:
        sent = {**headers, "Content-Type": dice.choice(types)}
        response = await fleet.client.post(path, content=body, headers=sent)
        if response.status_code >= 400 and response.headers["content-type"] == "application/json":
            document = response.json()
            assert "error" in document, document
            assert document["error"].get("code") != "internal_error", (body, document)
        assert response.status_code != 500, (body, response.text)

    await asyncio.gather(*[ask(body) for body in bodies])
    assert not fleet.engine.state.live.in_flight
    assert not [entry for entry in fleet.recorder.entries if entry.error_code == "internal_error"]
