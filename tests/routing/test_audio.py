"""Speech and transcriptions through the gateway: forms and sound pass on as they are, whatever happens on the way."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import httpx
import pytest
from asgiref.sync import sync_to_async

from llmlb_site.lib.events import publish
from models_catalog.models import ModelAlias
from nodes.fake_node import Behaviour
from tests.routing.conftest import Fleet, MakeFleet, bearer, eventually
from tests.routing.provider_support import Cloud, cloud
from tests.support.fake_provider import Script

__all__ = ["cloud"]

WAV = b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(range(256)) * 16
TRANSCRIBE = "/v1/audio/transcriptions"
TRANSLATE = "/v1/audio/translations"
SPEECH = "/v1/audio/speech"
BOUNDARY = "a-boundary-7"


async def upload(
    fleet: Fleet, path: str = TRANSCRIBE, *, file: Any = ("talk.wav", WAV), **fields: Any
) -> httpx.Response:
    data = {"model": "whisper-1", **fields}
    return await fleet.client.post(
        path,
        data={name: value for name, value in data.items() if value is not None},
        files={"file": file} if file is not None else {"other": ("x.bin", b"x")},
        headers=bearer(fleet.key),
    )


async def say(fleet: Fleet, **fields: Any) -> httpx.Response:
    body = {"model": "tts-1", "input": "Good morning.", "voice": "nova", **fields}
    return await fleet.client.post(SPEECH, json=body, headers=bearer(fleet.key))


def code_of(response: httpx.Response) -> tuple[int, str, str | None]:
    error = response.json()["error"]
    return response.status_code, error["code"], error["param"]


# --- transcriptions and translations


@pytest.mark.parametrize("path", [TRANSCRIBE, TRANSLATE])
async def test_the_form_reaches_the_node_byte_for_byte(fleet: Fleet, path: str) -> None:
    node = await fleet.add("whisper-1")
    body = (
        (
            f"--{BOUNDARY}\r\ncontent-disposition: form-data;name=model\r\n\r\nwhisper-1\r\n"
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="\u97f3.wav"\r\nX-Own: 1\r\n\r\n'
        ).encode()
        + WAV
        + f"\r\n--{BOUNDARY}--".encode()
    )
    kind = f'multipart/form-data; boundary="{BOUNDARY}"'
    response = await fleet.client.post(path, content=body, headers={**bearer(fleet.key), "Content-Type": kind})
    assert response.status_code == 200, response.text
    assert response.json()["text"].startswith("fake-0")
    (seen,) = node.inferences
    assert (seen.path, seen.body, seen.headers["content-type"]) == (path, body, kind)
    assert fleet.key not in str(seen.headers)


@pytest.mark.parametrize(
    ("kind", "media_type", "start"),
    [
        ("json", "application/json", b'{"text"'),
        ("verbose_json", "application/json", b'{"text"'),
        ("text", "text/plain; charset=utf-8", b"fake-0"),
        ("srt", "text/plain; charset=utf-8", b"1\nfake-0"),
        ("vtt", "text/vtt", b"WEBVTT"),
    ],
)
async def test_every_format_passes(fleet: Fleet, kind: str, media_type: str, start: bytes) -> None:
    await fleet.add("whisper-1")
    response = await upload(fleet, response_format=kind)
    assert (response.status_code, response.headers["content-type"]) == (200, media_type)
    assert response.content.startswith(start)


async def test_a_growing_transcript_passes_event_by_event(fleet: Fleet) -> None:
    await fleet.add("whisper-1")
    response = await upload(fleet, stream="true")
    events = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: ")]
    assert [event["type"] for event in events] == ["transcript.text.delta"] * 5 + ["transcript.text.done"]
    (entry,) = await fleet.settled()
    assert (entry.stream, entry.prompt_tokens, entry.completion_tokens, entry.token_source) == (True, 7, 5, "usage")


async def test_a_transcript_that_stops_is_told_as_broken(fleet: Fleet) -> None:
    await fleet.add("whisper-1", behaviour=Behaviour(mode="no_finish"))
    response = await upload(fleet, stream="true")
    assert '"code":"node_connection_error"' in response.text
    assert (await fleet.settled())[0].outcome == "broken"
    await eventually(fleet.excluded)


async def test_an_upload_is_repeated_on_another_node(make_fleet: MakeFleet) -> None:
    fleet = await make_fleet(connect_timeout=1)
    big = WAV + bytes(3_000_000)
    bad = await fleet.add("whisper-1", behaviour=Behaviour(status=500))
    good = await fleet.add("whisper-1")
    for _ in range(2):
        response = await upload(fleet, file=("talk.wav", big))
        assert response.status_code == 200, response.text
    assert len(bad.inferences) == 1
    assert all(big in request.body for request in (*bad.inferences, *good.inferences))
    retried = next(entry for entry in await fleet.settled(2) if len(entry.attempts) == 2)
    assert retried.bytes_in > len(big)


async def test_an_alias_is_written_into_the_form_and_nothing_else_is(fleet: Fleet) -> None:
    node = await fleet.add("whisper-large-v3-turbo")

    def name_it() -> None:
        ModelAlias.objects.create(alias="ears", model_id="whisper-large-v3-turbo")
        publish("models")

    await sync_to_async(name_it)()
    response = await upload(fleet, model="ears", language="ja")
    assert response.status_code == 200, response.text
    assert b'name="model"\r\n\r\nwhisper-large-v3-turbo\r\n' in node.inferences[0].body
    assert WAV in node.inferences[0].body
    assert int(node.inferences[0].headers["content-length"]) == len(node.inferences[0].body)


REFUSED: dict[str, tuple[dict[str, Any], tuple[int, str, str | None]]] = {
    "no model": ({"model": None}, (400, "model_required", "model")),
    "an empty model": ({"model": " "}, (400, "model_required", "model")),
    "two models": ({"model": ["whisper-1", "other"]}, (400, "duplicate_parameter", "model")),
    "no file": ({"file": None}, (400, "invalid_parameter", "file")),
    "an empty file": ({"file": ("talk.wav", b"")}, (400, "invalid_parameter", "file")),
    "a file that is no audio": ({"file": ("talk.wav", b"%PDF-1.7 and so on")}, (400, "invalid_file", "file")),
    "a temperature out of range": ({"temperature": "1.5"}, (400, "invalid_parameter", "temperature")),
    "a temperature that is none": ({"temperature": "warm"}, (400, "invalid_parameter", "temperature")),
    "a stream that is neither": ({"stream": "perhaps"}, (400, "invalid_parameter", "stream")),
    "an unknown format": ({"response_format": "docx"}, (400, "invalid_parameter", "response_format")),
    "an unknown model": ({"model": "whisper-9"}, (404, "model_not_found", "model")),
    "a model that does not hear": ({"model": "tts-1"}, (400, "model_capability_mismatch", "model")),
}


@pytest.mark.parametrize("why", REFUSED)
async def test_what_is_wrong_is_refused_before_a_node_is_asked(fleet: Fleet, why: str) -> None:
    node = await fleet.add("whisper-1", "tts-1")
    fields, expected = REFUSED[why]
    assert code_of(await upload(fleet, **fields)) == expected
    assert not node.inferences


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("a.wav", b"RIFF\0\0\0\0WAVE"),
        ("a.mp3", b"ID3\x04"),
        ("a.mpga", b"\xff\xfb\x90"),
        ("padded.mp3", bytes(100) + b"\xff\xfb\x90"),
        ("a.flac", b"fLaC"),
        ("a.ogg", b"OggS"),
        ("a.m4a", b"\0\0\0\x20ftypM4A "),
        ("a.webm", b"\x1a\x45\xdf\xa3"),
        ("blob", b"OggS"),
    ],
)
async def test_every_kind_of_audio_is_taken(fleet: Fleet, name: str, head: bytes) -> None:
    await fleet.add("whisper-1")
    assert (await upload(fleet, file=(name, head + bytes(300)))).status_code == 200


async def test_json_where_a_form_belongs_and_a_form_where_json_belongs(fleet: Fleet) -> None:
    await fleet.add("whisper-1")
    response = await fleet.client.post(TRANSCRIBE, json={"model": "whisper-1"}, headers=bearer(fleet.key))
    assert code_of(response) == (415, "unsupported_media_type", None)
    assert "multipart/form-data" in response.json()["error"]["message"]
    assert code_of(await upload(fleet, SPEECH)) == (415, "unsupported_media_type", None)


async def test_a_form_that_ends_too_early(fleet: Fleet) -> None:
    node = await fleet.add("whisper-1")
    head = {**bearer(fleet.key), "Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    body = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n--{BOUNDARY}\r\n'.encode()
    assert code_of(await fleet.client.post(TRANSCRIBE, content=body, headers=head)) == (400, "invalid_form", None)
    assert not node.inferences


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_upload_over_the_limit(make_fleet: MakeFleet, chunked: bool) -> None:
    fleet = await make_fleet(max_multipart_bytes=100_000)
    node = await fleet.add("whisper-1")
    request = fleet.client.build_request(
        "POST", TRANSCRIBE, data={"model": "whisper-1"}, files={"file": ("a.wav", WAV + bytes(200_000))}
    )
    body, headers = request.read(), {**bearer(fleet.key), "Content-Type": request.headers["content-type"]}

    async def pieces() -> Any:
        for start in range(0, len(body), 10_000):
            yield body[start : start + 10_000]

    response = await fleet.client.post(TRANSCRIBE, content=pieces() if chunked else body, headers=headers)
    assert code_of(response) == (413, "request_too_large", None)
    assert not node.inferences
    assert (await upload(fleet)).status_code == 200, "and what is smaller goes on"


async def test_a_client_that_hangs_up_while_it_uploads(fleet: Fleet) -> None:
    node = await fleet.add("whisper-1")
    host, port = fleet.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = f"POST {TRANSCRIBE} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {fleet.key}\r\nContent-Length: 5000000\r\n"
    writer.write(f"{head}Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n--{BOUNDARY}\r\n".encode())
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.transport.abort()
    assert (await fleet.settled())[0].outcome == "cancelled"
    assert not node.inferences


async def test_the_history_holds_what_was_said_and_no_sound(fleet: Fleet) -> None:
    await fleet.add("whisper-1", "tts-1")
    await upload(fleet, language="ja")
    await say(fleet)
    heard, spoken = await fleet.settled(2)
    assert (heard.kind, heard.outcome) == ("transcription", "success")
    assert heard.bytes_in > len(WAV)
    form = json.loads(heard.request_body)
    assert form == {
        "model": "whisper-1",
        "language": "ja",
        "file": {"filename": "talk.wav", "content_type": "audio/x-wav", "bytes": len(WAV)},
    }
    assert b"fake-0" in heard.response_body
    assert (spoken.kind, json.loads(spoken.request_body)["input"]) == ("speech", "Good morning.")
    assert json.loads(spoken.response_body) == {"bytes": spoken.bytes_out}
    assert not spoken.response_truncated


# --- speech


@pytest.mark.parametrize(("kind", "media_type"), [("mp3", "audio/mpeg"), ("wav", "audio/wav"), ("flac", "audio/flac")])
async def test_speech_passes_as_it_is_made(fleet: Fleet, kind: str, media_type: str) -> None:
    node = await fleet.add("tts-1", behaviour=Behaviour(chunk_interval=0.05))
    body = {"model": "tts-1", "input": "Good morning.", "voice": "nova", "response_format": kind, "speed": 4}
    arrivals = []
    async with fleet.client.stream("POST", SPEECH, json=body, headers=bearer(fleet.key)) as response:
        assert (response.status_code, response.headers["content-type"]) == (200, media_type)
        async for _ in response.aiter_raw():
            arrivals.append(asyncio.get_running_loop().time())
    assert arrivals[-1] - arrivals[0] > 0.1, "not held back until the end"
    assert json.loads(node.inferences[0].body) == body
    (entry,) = await fleet.settled()
    assert (entry.prompt_tokens, entry.token_source) == (3, "estimated")


async def test_speech_as_events(fleet: Fleet) -> None:
    await fleet.add("tts-1")
    response = await say(fleet, stream_format="sse")
    events = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: ")]
    assert [event["type"] for event in events] == ["speech.audio.delta"] * 5 + ["speech.audio.done"]
    assert base64.b64decode(events[0]["audio"]).startswith(b"fake-0")
    assert (await fleet.settled())[0].total_tokens == 12


async def test_sound_that_breaks_off_breaks_off_for_the_client_too(fleet: Fleet) -> None:
    await fleet.add("tts-1", behaviour=Behaviour(mode="cut_mid_stream", chunk_interval=0.02))
    with pytest.raises(httpx.RemoteProtocolError):
        await say(fleet)
    (entry,) = await fleet.settled()
    assert (entry.outcome, entry.error_code) == ("broken", "node_connection_error")
    await eventually(fleet.excluded)


@pytest.mark.parametrize("mode", ["not_json", "cut_before_headers", "garbage"])
async def test_speech_is_made_elsewhere_where_a_node_fails_before_the_first_byte(fleet: Fleet, mode: str) -> None:
    await fleet.add("tts-1", behaviour=Behaviour(mode=mode))  # type: ignore[arg-type]
    await fleet.add("tts-1")
    for _ in range(2):
        response = await say(fleet)
        assert (response.status_code, response.headers["content-type"]) == (200, "audio/mpeg")
    await eventually(fleet.excluded)


UNSPEAKABLE: dict[str, tuple[dict[str, Any], tuple[int, str, str | None]]] = {
    "nothing to say": ({"input": ""}, (400, "invalid_parameter", "input")),
    "no text": ({"input": 5}, (400, "invalid_parameter", "input")),
    "too much": ({"input": "a" * 4097}, (400, "string_above_max_length", "input")),
    "too slow": ({"speed": 0.2}, (400, "invalid_parameter", "speed")),
    "too fast": ({"speed": 4.1}, (400, "invalid_parameter", "speed")),
    "no format of sound": ({"response_format": "docx"}, (400, "invalid_parameter", "response_format")),
    "a model that does not speak": ({"model": "whisper-1"}, (400, "model_capability_mismatch", "model")),
}


@pytest.mark.parametrize("why", UNSPEAKABLE)
async def test_what_cannot_be_said_is_refused(fleet: Fleet, why: str) -> None:
    node = await fleet.add("tts-1", "whisper-1")
    fields, expected = UNSPEAKABLE[why]
    response = await say(fleet, **fields)
    assert code_of(response) == expected
    if expected[1] == "model_capability_mismatch":
        assert response.json()["error"]["message"] == "Model 'whisper-1' does not support text-to-speech"
    assert not node.inferences


async def test_the_longest_text_passes(fleet: Fleet) -> None:
    await fleet.add("tts-1")
    assert (await say(fleet, input="あ" * 4096)).status_code == 200


# --- a cloud provider's


async def test_a_providers_models_hear_and_speak(cloud: Cloud) -> None:
    provider = await cloud.add("openai")
    provider.script = Script(body={"text": "hello"})
    response = await upload(cloud.fleet, model="openai:whisper-1")
    assert (response.status_code, response.json()) == (200, {"text": "hello"})
    assert b'name="model"\r\n\r\nwhisper-1\r\n' in provider.inferences[0].body
    assert WAV in provider.inferences[0].body
    provider.script = Script(events=[b"\xff\xfb", b"sound"], media_type="audio/mpeg")
    response = await say(cloud.fleet, model="openai:tts-1")
    assert (response.content, response.headers["content-type"]) == (b"\xff\xfbsound", "audio/mpeg")
    assert provider.asked["model"] == "tts-1"


async def test_a_provider_that_has_no_ears(cloud: Cloud) -> None:
    await cloud.add("google")
    assert (await upload(cloud.fleet, model="google:gemini-2.5-flash")).status_code == 501
