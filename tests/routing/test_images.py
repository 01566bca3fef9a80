"""Images made, changed and varied through the gateway."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest

from nodes.fake.media import PNG
from nodes.fake_node import Behaviour
from tests.routing.conftest import Fleet, bearer, eventually

GENERATE = "/v1/images/generations"
EDIT = "/v1/images/edits"
VARY = "/v1/images/variations"
JPEG = b"\xff\xd8\xff\xe0" + bytes(100)
MODEL = "stable-diffusion-xl"


async def make(fleet: Fleet, **fields: Any) -> httpx.Response:
    body = {"model": MODEL, "prompt": "a cat on a roof", **fields}
    return await fleet.client.post(GENERATE, json=body, headers=bearer(fleet.key))


async def change(fleet: Fleet, path: str = EDIT, files: Any = None, **fields: Any) -> httpx.Response:
    data = {"model": MODEL, "prompt": "with a hat", **fields}
    return await fleet.client.post(
        path,
        data={name: value for name, value in data.items() if value is not None},
        files=files if files is not None else [("image", ("a.png", PNG))],
        headers=bearer(fleet.key),
    )


def code_of(response: httpx.Response) -> tuple[int, str, str | None]:
    error = response.json()["error"]
    return response.status_code, error["code"], error["param"]


async def test_images_are_made(fleet: Fleet) -> None:
    node = await fleet.add(MODEL)
    response = await make(fleet, n=3, size="1024x1024", quality="hd", style="vivid", response_format="b64_json")
    assert response.status_code == 200, response.text
    images = response.json()["data"]
    assert [base64.b64decode(image["b64_json"]) for image in images] == [PNG] * 3
    assert json.loads(node.inferences[0].body)["size"] == "1024x1024"
    (entry,) = await fleet.settled()
    assert (entry.kind, entry.total_tokens) == ("image", 12)


async def test_images_as_they_become_clear(fleet: Fleet) -> None:
    await fleet.add(MODEL)
    response = await make(fleet, stream=True, partial_images=2)
    events = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: ")]
    assert events[-1]["type"] == "image_generation.completed"
    assert (await fleet.settled())[0].outcome == "success"


async def test_a_stream_without_its_last_event_is_broken(fleet: Fleet) -> None:
    await fleet.add(MODEL, behaviour=Behaviour(mode="no_finish"))
    assert '"code":"node_connection_error"' in (await make(fleet, stream=True)).text
    await eventually(fleet.excluded)


async def test_what_is_no_image_list_is_asked_for_elsewhere(fleet: Fleet) -> None:
    await fleet.add(MODEL, behaviour=Behaviour(mode="not_json"))
    await fleet.add(MODEL)
    for _ in range(2):
        assert (await make(fleet)).status_code == 200
    await eventually(fleet.excluded)


@pytest.mark.parametrize("path", [EDIT, VARY])
async def test_images_are_changed_and_varied(fleet: Fleet, path: str) -> None:
    node = await fleet.add(MODEL)
    response = await change(fleet, path, n="2")
    assert response.status_code == 200, response.text
    assert len(response.json()["data"]) == 2
    assert PNG in node.inferences[0].body
    (entry,) = await fleet.settled()
    assert entry.kind == {EDIT: "image_edit", VARY: "image_variation"}[path]
    assert json.loads(entry.request_body)["image"]["bytes"] == len(PNG)


async def test_several_images_and_a_mask(fleet: Fleet) -> None:
    await fleet.add(MODEL)
    images = [("image[]", (f"{number}.jpg", JPEG)) for number in range(3)]
    assert (await change(fleet, files=[*images, ("mask", ("m.png", PNG))])).status_code == 200


MADE_WRONG: dict[str, tuple[dict[str, Any], tuple[int, str, str | None]]] = {
    "no prompt": ({"prompt": None}, (400, "invalid_parameter", "prompt")),
    "an empty prompt": ({"prompt": ""}, (400, "invalid_parameter", "prompt")),
    "a prompt without end": ({"prompt": "a" * 32_001}, (400, "string_above_max_length", "prompt")),
    "no image at all": ({"n": 0}, (400, "invalid_parameter", "n")),
    "too many": ({"n": 11}, (400, "invalid_parameter", "n")),
    "an unknown form of answer": ({"response_format": "tiff"}, (400, "invalid_parameter", "response_format")),
    "a model that does not paint": ({"model": "whisper-1"}, (400, "model_capability_mismatch", "model")),
}


@pytest.mark.parametrize("why", MADE_WRONG)
async def test_what_cannot_be_made_is_refused(fleet: Fleet, why: str) -> None:
    node = await fleet.add(MODEL, "whisper-1")
    fields, expected = MADE_WRONG[why]
    response = await make(fleet, **fields)
    assert code_of(response) == expected
    if expected[1] == "model_capability_mismatch":
        assert response.json()["error"]["message"] == "Model 'whisper-1' does not support image generation"
    assert not node.inferences


CHANGED_WRONG: dict[str, tuple[dict[str, Any], tuple[int, str, str | None]]] = {
    "no image": ({"files": [("mask", ("m.png", PNG))]}, (400, "invalid_parameter", "image")),
    "no prompt": ({"prompt": None}, (400, "invalid_parameter", "prompt")),
    "no picture": ({"files": [("image", ("a.png", b"GIF? no."))]}, (400, "invalid_image", "image")),
    "a mask that is none": (
        {"files": [("image", ("a.png", PNG)), ("mask", ("m.png", b"%PDF"))]},
        (400, "invalid_image", "mask"),
    ),
    "too many": ({"files": [("image[]", ("a.png", PNG))] * 17}, (400, "invalid_parameter", "image")),
    "too many wanted": ({"n": "11"}, (400, "invalid_parameter", "n")),
    "a field as image": ({"files": [("other", ("a.png", PNG))], "image": "a.png"}, (400, "invalid_parameter", "image")),
    "not PNG for the old model": (
        {"files": [("image", ("a.jpg", JPEG))], "model": "dall-e-2"},
        (400, "invalid_image", "image"),
    ),
    "to be varied, not PNG": ({"path": VARY, "files": [("image", ("a.jpg", JPEG))]}, (400, "invalid_image", "image")),
    "to be varied, two": (
        {"path": VARY, "files": [("image", ("a.png", PNG))] * 2},
        (400, "invalid_parameter", "image"),
    ),
    "to be varied, too large": (
        {"path": VARY, "files": [("image", ("a.png", PNG + bytes(4 * 1024 * 1024)))]},
        (400, "image_too_large", "image"),
    ),
}


@pytest.mark.parametrize("why", CHANGED_WRONG)
async def test_what_cannot_be_changed_is_refused(fleet: Fleet, why: str) -> None:
    node = await fleet.add(MODEL, "dall-e-2")
    fields, expected = CHANGED_WRONG[why]
    assert code_of(await change(fleet, **fields)) == expected
    assert not node.inferences


async def test_the_history_holds_the_words_and_no_picture(fleet: Fleet) -> None:
    node = await fleet.add(MODEL)
    picture = base64.b64encode(PNG * 1000)
    node.behaviour = Behaviour(status=400, error_body={"error": {"message": "no"}, "b64_json": picture.decode()})
    await make(fleet, picture=f"data:image/png;base64,{picture.decode()}")
    (entry,) = await fleet.settled()
    assert json.loads(entry.request_body) == {
        "model": MODEL,
        "prompt": "a cat on a roof",
        "picture": f"data:image/png;base64,[{len(picture)} characters]",
    }
    assert json.loads(entry.response_body)["b64_json"] == f"[{len(picture)} characters]"
