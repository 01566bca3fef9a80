"""Asking `/v1/messages`, for the tests of it."""

from __future__ import annotations

import json
from typing import Any

import httpx
from asgiref.sync import sync_to_async

from llmlb_site.lib.events import publish
from models_catalog.models import ModelAlias
from nodes.fake.messages import PATHS
from nodes.fake_node import FakeNode
from tests.routing.conftest import Fleet

MESSAGES = "/v1/messages"
COUNT = "/v1/messages/count_tokens"
VERSION = {"anthropic-version": "2023-06-01"}
CALLS = {
    "reasoning_content": "The user wants the weather.",
    "content": "Let me look.",
    "tool_calls": [
        {
            "id": f"call_{city}",
            "type": "function",
            "function": {"name": "weather", "arguments": json.dumps({"city": city, "days": [1, 2]})},
        }
        for city in ("Tokyo", "Zürich")
    ],
}
TOOL = {"name": "weather", "description": "Looks outside", "input_schema": {"type": "object", "properties": {}}}


async def native(fleet: Fleet, *models: str, **values: Any) -> FakeNode:
    return await fleet.add(*models, apis=PATHS, row={"native_apis": sorted(PATHS)}, **values)


async def ask(fleet: Fleet, path: str = MESSAGES, *, headers: dict[str, str] = VERSION, **body: Any) -> httpx.Response:
    body = {"model": "model-a", "max_tokens": 64, "messages": [{"role": "user", "content": "hello there"}], **body}
    return await fleet.client.post(path, json=body, headers={**headers, "x-api-key": fleet.key})


async def stream(fleet: Fleet, **body: Any) -> list[dict[str, Any]]:
    response = await ask(fleet, stream=True, **body)
    assert response.headers["content-type"].startswith("text/event-stream"), response.text
    return events_in(response.text)


def events_in(text: str) -> list[dict[str, Any]]:
    """The data of every event; its name is the type in the data."""
    events = []
    for block in text.strip().split("\n\n"):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        events.append(event)
    return events


def sent(node: FakeNode) -> dict[str, Any]:
    """The last inference that a node was asked for."""
    body: dict[str, Any] = json.loads(node.inferences[-1].body)
    return body


async def alias(name: str, model: str) -> None:
    def make() -> None:
        ModelAlias.objects.create(alias=name, model_id=model)
        publish("models")

    await sync_to_async(make)()


def error_of(response: httpx.Response) -> tuple[int, str]:
    document = response.json()
    assert document["type"] == "error"
    assert document["error"]["message"]
    return response.status_code, document["error"]["type"]


def gathered(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The content blocks that a client puts together. Blocks follow one another."""
    blocks: list[dict[str, Any]] = []
    pieces: list[str] = []
    for event in events:
        if event["type"] == "content_block_start":
            assert event["index"] == len(blocks)
            blocks.append(event["content_block"])
            pieces = []
        elif event["type"] == "content_block_delta":
            assert event["index"] == len(blocks) - 1
            kind = event["delta"]["type"]
            pieces.append(event["delta"][{"input_json_delta": "partial_json"}.get(kind, kind.removesuffix("_delta"))])
        elif event["type"] == "content_block_stop":
            block, text = blocks[event["index"]], "".join(pieces)
            name = {"tool_use": "input"}.get(block["type"], block["type"])
            block[name] = json.loads(text) if name == "input" else text
    return blocks
