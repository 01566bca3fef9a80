"""Pictures in a conversation: untouched on their way, checked before it, and only to models that may see them."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest
from asgiref.sync import sync_to_async

from llmlb_site.lib.events import publish
from nodes.fake.media import PNG
from nodes.models import NodeModel
from routing.core.errors import Refusal
from routing.protocols.vision import MAX_IMAGE_BYTES, check_pictures
from tests.routing.conftest import Fleet, bearer


def data_url(data: bytes = PNG, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def part(url: Any = None) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": data_url() if url is None else url}}


def conversation(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, *parts]}]


async def show(fleet: Fleet, *parts: dict[str, Any], model: str = "model-a", **more: Any) -> httpx.Response:
    return await fleet.post(model=model, messages=conversation(*(parts or (part(),))), **more)


def code_of(response: httpx.Response) -> tuple[int, str, str | None]:
    error = response.json()["error"]
    return response.status_code, error["code"], error["param"]


async def say(**values: Any) -> None:
    """What is known of every model on the node `node-…`, or on all."""

    def write() -> None:
        name = values.pop("node", None)
        rows = NodeModel.objects.filter(node__name=name) if name else NodeModel.objects.all()
        rows.update(**values)
        publish("models")

    await sync_to_async(write)()


async def test_a_request_with_pictures_passes_untouched(fleet: Fleet) -> None:
    node = await fleet.add("model-a")
    body = (
        b'{ "model":"model-a","messages":%s }'
        % json.dumps(
            conversation(part(), part("https://example.org/cat.png"), part(data_url(b"GIF89a", "image/gif")))
        ).encode()
    )
    response = await fleet.client.post("/v1/chat/completions", content=body, headers=bearer(fleet.key))
    assert response.status_code == 200, response.text
    assert node.inferences[0].body == body


@pytest.mark.parametrize(
    ("head", "media_type"),
    [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"\xff\xd8\xff\xe0", "image/jpg"),
        (b"GIF87a", "image/gif"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "image/webp"),
    ],
)
def test_every_kind_of_picture(head: bytes, media_type: str) -> None:
    picture = part(data_url(head + bytes(100), media_type))
    assert list(check_pictures(conversation(picture), "messages", 10)) == ["vision"]


WRONG: dict[str, tuple[list[dict[str, Any]], str]] = {
    "eleven of them": ([part()] * 11, "too_many_images"),
    "too large": ([part(data_url(PNG + bytes(MAX_IMAGE_BYTES)))], "image_too_large"),
    "another kind": ([part(data_url(b"<svg/>", "image/svg+xml"))], "invalid_image"),
    "another kind by its bytes": ([part(data_url(b"%PDF-1.7", "image/png"))], "invalid_image"),
    "no Base64": ([part("data:image/png;base64,***!")], "invalid_image"),
    "an empty one": ([part("data:image/png;base64,")], "invalid_image"),
    "not encoded": ([part("data:image/png,abc")], "invalid_image"),
    "a file of the node": ([part("file:///etc/passwd")], "invalid_image"),
    "no address": ([{"type": "image_url", "image_url": {}}], "invalid_image"),
    "nothing": ([{"type": "image_url"}], "invalid_image"),
}


@pytest.mark.parametrize("why", WRONG)
async def test_what_is_no_picture_is_refused(fleet: Fleet, why: str) -> None:
    node = await fleet.add("model-a")
    parts, code = WRONG[why]
    assert code_of(await show(fleet, *parts)) == (400, code, "messages")
    assert not node.inferences


@pytest.mark.parametrize("text", [b"\\ud800", b"\xff", b'"}]}' + b"[" * 5000])
async def test_a_body_that_cannot_be_read(fleet: Fleet, text: bytes) -> None:
    await fleet.add("model-a")
    body = b'{"model":"model-a","messages":[{"content":[{"type":"image_url"},"%b"]}]}' % text
    response = await fleet.client.post("/v1/chat/completions", content=body, headers=bearer(fleet.key))
    assert code_of(response) == (400, "invalid_json", None)


def test_a_picture_of_just_the_size_passes() -> None:
    exact = PNG + bytes(MAX_IMAGE_BYTES - len(PNG))
    assert check_pictures(conversation(part(data_url(exact))), "messages", 10)


def test_pictures_are_found_wherever_the_apis_put_them() -> None:
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(PNG).decode()}
    deep = {"type": "tool_result", "content": [{"type": "image", "source": source}]}
    assert check_pictures([{"role": "user", "content": [deep]}], "messages", 100)
    flat = [{"role": "user", "content": [{"type": "input_image", "image_url": data_url()}]}]
    assert check_pictures(flat, "input", 100)
    assert check_pictures([{"type": "input_image", "file_id": "file-1"}], "input", 100)
    broken = {"type": "image", "source": {**source, "data": "AAAA"}}
    with pytest.raises(Refusal):
        check_pictures([{"role": "user", "content": [broken]}], "messages", 100)


@pytest.mark.parametrize("conversation", [None, "hello", 5, [], [None, 5, "image_url"], [{"content": "image_url"}]])
def test_a_conversation_without_pictures_wants_nothing(conversation: Any) -> None:
    assert not check_pictures(conversation, "messages", 10)


# --- who sees


async def test_a_model_that_is_known_not_to_see(fleet: Fleet) -> None:
    node = await fleet.add("llama-3.1-8b-instruct")
    response = await show(fleet, model="llama-3.1-8b-instruct")
    assert code_of(response) == (400, "model_capability_mismatch", "model")
    assert response.json()["error"]["message"] == "Model 'llama-3.1-8b-instruct' does not support vision"
    assert not node.inferences
    assert (await fleet.post(model="llama-3.1-8b-instruct")).status_code == 200, "text alone goes on"


@pytest.mark.parametrize("model", ["llava:7b", "model-a", "llama3.2:3b"])
async def test_a_model_that_sees_or_may_see(fleet: Fleet, model: str) -> None:
    await fleet.add(model)
    assert (await show(fleet, model=model)).status_code == 200


async def test_the_nodes_word_and_the_operators_word(fleet: Fleet) -> None:
    await fleet.add("llava:7b")
    await say(reported_capabilities={"vision": False})
    assert (await show(fleet, model="llava:7b")).status_code == 400
    await say(capabilities=["text", "vision"])
    assert (await show(fleet, model="llava:7b")).status_code == 200


async def test_pictures_go_where_the_model_sees_and_words_anywhere(fleet: Fleet) -> None:
    """The same model with its eyes on one node, and without on the other: llama.cpp with and without a projector."""
    blind = await fleet.add("model-a")
    seeing = await fleet.add("model-a")
    await say(node="node-1", reported_capabilities={"vision": False})
    await say(node="node-2", reported_capabilities={"vision": True})
    for _ in range(4):
        assert (await show(fleet)).status_code == 200
        assert (await fleet.post()).status_code == 200
    assert not [request for request in blind.inferences if b"image_url" in request.body]
    assert len([request for request in seeing.inferences if b"image_url" in request.body]) == 4
    assert len(blind.inferences) >= 2


async def test_a_picture_is_not_repeated_on_a_node_that_is_blind(fleet: Fleet) -> None:
    blind = await fleet.add("model-a")
    seeing = await fleet.add("model-a")
    await say(node="node-1", reported_capabilities={"vision": False})
    seeing.behaviour.status = 500
    assert (await show(fleet)).status_code == 500
    assert not blind.inferences


async def test_the_list_says_what_a_model_can_do_in_both_shapes(fleet: Fleet) -> None:
    await fleet.add("llava:7b", "model-a", "whisper-1")
    listed = await fleet.client.get("/v1/models", headers=bearer(fleet.key))
    models = {model["id"]: model for model in listed.json()["data"]}
    assert models["llava:7b"]["capabilities"] == ["text", "vision"]
    assert models["model-a"]["capabilities"] == []
    flags = {id: {name for name, yes in model["capability_flags"].items() if yes} for id, model in models.items()}
    assert flags == {
        "llava:7b": {"chat_completion", "completion", "inference", "vision"},
        "model-a": {"chat_completion", "completion", "inference"},
        "whisper-1": {"speech_to_text", "inference"},
    }


async def test_the_history_holds_the_question_and_no_picture(fleet: Fleet) -> None:
    await fleet.add("model-a")
    await show(fleet, part(data_url(PNG * 100)))
    (entry,) = await fleet.settled()
    kept = json.loads(entry.request_body)
    assert kept["messages"][0]["content"][0]["text"] == "What is this?"
    assert kept["messages"][0]["content"][1]["image_url"]["url"].startswith("data:image/png;base64,[")
    assert len(entry.request_body) < 500
    assert entry.bytes_in > 7000
