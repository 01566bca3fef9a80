"""What goes to an engine and what comes back: untouched, and honest where it stops too early."""

from __future__ import annotations

import json
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmlb_site.lib.upstream.faults import BrokenFault, NodeFault, TimeoutFault
from nodes.runtime.serving.http import Refused
from nodes.runtime.serving.intake import read_asked
from nodes.runtime.serving.relay import Relay, refusal_for
from tests.nodes.serving.conftest import MakeNode
from tests.support import model_files
from tests.support.node_server import seen

JSON = b"application/json"
EVENTS = b"text/event-stream; charset=utf-8"


class Answer:
    """An engine's answer that comes in these pieces, and then ends or breaks."""

    def __init__(self, media_type: bytes, *pieces: bytes, status: int = 200, fault: NodeFault | None = None) -> None:
        self.status = status
        self.headers = [(b"content-type", media_type), (b"server", b"engine"), (b"x-engine", b"told")]
        self._pieces = list(pieces)
        self._fault = fault

    async def read(self) -> bytes:
        if self._pieces:
            return self._pieces.pop(0)
        if self._fault is not None:
            raise self._fault
        return b""

    def close(self) -> None: ...


class Client:
    """Collects what is sent."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.pieces: list[bytes] = []
        self.ended = False

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
            return
        self.pieces.append(message["body"])
        self.ended = not message["more_body"]

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)


async def relayed(answer: Answer, path: str = "/v1/chat/completions") -> Client:
    client = Client()
    await Relay(client, path).pass_on(answer)
    return client


async def test_events_pass_untouched_and_each_at_once() -> None:
    pieces = (b'data: {"a": 1}\n\nda', b"ta: 2\r\n\r\n: comment\n\n", b"data: [DONE]\n\n", b"rest")
    client = await relayed(Answer(EVENTS, *pieces))
    assert client.body == b"".join(pieces)
    assert client.pieces[0] == b'data: {"a": 1}\n\n'
    assert client.ended
    assert client.headers == {b"content-type": EVENTS, b"x-engine": b"told"}


@pytest.mark.parametrize(
    ("path", "ending"),
    [
        ("/v1/chat/completions", b'data: {"error": '),
        ("/v1/messages", b'event: error\ndata: {"type": "error", "error": '),
        ("/v1/responses", b'event: error\ndata: {"type": "error", "code": "engine_failed"'),
    ],
)
async def test_a_stream_that_breaks_ends_with_the_apis_own_error_event(path: str, ending: bytes) -> None:
    answer = Answer(EVENTS, b"data: 1\n\ndata: half an ev", fault=BrokenFault("gone"))
    client = await relayed(answer, path)
    assert client.body.startswith(b"data: 1\n\n" + ending)
    assert b"half" not in client.body
    assert b"[DONE]" not in client.body
    assert client.ended


@pytest.mark.parametrize("media_type", [JSON, EVENTS, b"audio/mpeg"])
async def test_what_breaks_before_the_first_byte_is_an_error_of_its_own(media_type: bytes) -> None:
    client = Client()
    with pytest.raises(BrokenFault):
        await Relay(client, "/v1/x").pass_on(Answer(media_type, fault=BrokenFault("gone")))
    assert client.status == 0


async def test_json_that_is_cut_off_is_never_begun() -> None:
    client = Client()
    with pytest.raises(BrokenFault):
        await Relay(client, "/v1/x").pass_on(Answer(JSON, b'{"half": ', fault=BrokenFault("gone")))
    assert client.status == 0


async def test_sound_that_is_cut_off_is_not_ended() -> None:
    """There is no place for words in sound: only the connection, which the server then breaks, can tell."""
    client = await relayed(Answer(b"audio/mpeg", b"first", b"second", fault=BrokenFault("gone")))
    assert client.body == b"firstsecond"
    assert not client.ended


async def test_an_engines_own_error_passes_as_it_is() -> None:
    client = await relayed(Answer(JSON, b'{"error": {"message": "too long"}}', status=400))
    assert (client.status, client.body) == (400, b'{"error": {"message": "too long"}}')
    assert client.headers[b"content-length"] == b"34"


def test_silence_is_told_apart_from_failure() -> None:
    assert (refusal_for(TimeoutFault("slow")).status, refusal_for(BrokenFault("gone")).status) == (504, 502)


def test_a_body_is_changed_in_the_models_name_alone() -> None:
    body = b'{"messages" : [ {"content":"\\u00e4"} ],"model":"a/b", "temperature":1.0, "seed":12345678901234567890}'
    asked = read_asked(JSON, body)
    assert asked.model == "a/b"
    assert asked.calling_it("a/b") is body
    renamed = asked.calling_it("default_model")
    raw = msgspec.json.Decoder(dict[str, msgspec.Raw])
    before, after = raw.decode(body), raw.decode(renamed)
    assert bytes(after.pop("model")) == b'"default_model"'
    del before["model"]
    assert {name: bytes(value) for name, value in after.items()} == {
        name: bytes(value) for name, value in before.items()
    }


def test_a_form_is_changed_in_the_models_name_alone() -> None:
    sound = bytes(range(256)) * 10
    head = b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + sound + b"\r\n"
    name = b'--xyz\r\nContent-Disposition: form-data; name="model"\r\n\r\n'
    asked = read_asked(b"multipart/form-data; boundary=xyz", head + name + b"whisper\r\n--xyz--\r\n")
    assert asked.model == "whisper"
    assert asked.calling_it("other") == head + name + b"other\r\n--xyz--\r\n"


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        (JSON, b"[]"),
        (JSON, b"{"),
        (JSON, b"{}"),
        (JSON, b'{"model": ""}'),
        (JSON, b'{"model": ["a"]}'),
        (JSON, b"[" * 100_000),
        (b"multipart/form-data; boundary=xyz", b"nonsense"),
        (b"multipart/form-data", b""),
        (b"multipart/form-data; boundary=xyz", b"--xyz--\r\n"),
    ],
)
def test_what_names_no_model_is_refused(media_type: bytes, body: bytes) -> None:
    with pytest.raises(Refused) as refused:
        read_asked(media_type, body)
    assert refused.value.status == 400


def test_an_engine_that_wants_another_name_gets_it(tmp_path: Path, serve: MakeNode) -> None:
    model_files.snapshot(tmp_path / "models" / "org" / "small")
    node = serve(tmp_path / "models", gpu_backend="metal")
    assert node.get("/v1/models")["data"][0]["engine"] == "mlx"
    assert node.chat("org/small").status_code == 200
    assert any(line.startswith("mlx_lm.server /v1/chat/completions default_model ") for line in seen(node))


def test_a_stream_through_a_node_is_the_engines_own(tmp_path: Path, serve: MakeNode) -> None:
    model_files.gguf(tmp_path / "models" / "a" / "model.gguf")
    node = serve(tmp_path / "models")
    answer = node.chat("a", stream=True)
    deltas = [{"content": token} for token in ("Hello", " from", " a", " stand-in", ".")]
    choices: list[dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    events = [json.dumps({"choices": [choice]}) for choice in choices]
    assert answer.text == "".join(f"data: {event}\n\n" for event in [*events, "[DONE]"])
    assert answer.headers["content-type"] == "text/event-stream"
    refused = node.chat("a", "refuse")
    assert (refused.status_code, refused.json()["error"]["message"]) == (500, "this stand-in refuses")


def test_images_are_made_by_an_engine_that_has_no_page_for_its_health(tmp_path: Path, serve: MakeNode) -> None:
    model_files.diffusers(tmp_path / "models" / "painter")
    node = serve(tmp_path / "models")
    assert node.get("/v1/models")["data"][0]["engine"] == "stable-diffusion.cpp"
    answer = node.post("/v1/images/generations", json={"model": "painter", "prompt": "the sea"})
    assert (answer.status_code, answer.json()["data"]) == (200, [{"b64_json": "aGVsbG8="}])
    assert node.chat("painter").json()["error"]["code"] == "model_capability_mismatch"


def test_a_body_that_is_too_large_is_refused(tmp_path: Path, serve: MakeNode) -> None:
    model_files.gguf(tmp_path / "models" / "a" / "model.gguf")
    node = serve(tmp_path / "models", max_body_bytes=2048)
    answer = node.chat("a", "x" * 4096)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
