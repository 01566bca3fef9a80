"""A prefix leads to its provider, and nothing else does: keys, lists, errors, hang-ups, history."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import httpx
import pytest
from asgiref.sync import sync_to_async

from llmlb_site.lib.events import publish
from models_catalog.models import CloudProvider, ModelAlias
from routing.core.prefix import canonical, split
from tests.routing.conftest import Fleet, bearer, eventually
from tests.routing.provider_support import Cloud, cloud
from tests.routing.support import chat_body
from tests.support.fake_provider import (
    ERRORS,
    KEY,
    Script,
    anthropic_answer,
    google_answer,
    openai_answer,
    openai_stream,
)

__all__ = ["cloud"]
ANSWERS: dict[str, Any] = {
    "openai": openai_answer("gpt-4o", "Hello"),
    "google": google_answer({"text": "Hello"}),
    "anthropic": anthropic_answer({"type": "text", "text": "Hello"}),
}
MODELS = {"openai": "openai:gpt-4o", "google": "google:gemini-2.5-flash", "anthropic": "anthropic:claude-sonnet-4-5"}


def error_of(response: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = response.json()["error"]
    return error


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("openai:gpt-4o", ("openai", "gpt-4o")),
        ("google:gemini:x", ("google", "gemini:x")),
        ("ahtnorpic:claude", ("anthropic", "claude")),
        ("anthropic:", ("anthropic", "")),
        ("llama3.2:3b", None),
        ("openai", None),
        ("OpenAI:gpt", None),
        ("my/openai:gpt", None),
    ],
)
def test_which_names_ask_a_provider(name: str, parts: tuple[str, str] | None) -> None:
    assert split(name) == parts
    assert canonical(name) == (":".join(parts) if parts else name)


@pytest.mark.parametrize("name", MODELS)
async def test_every_provider_answers_in_openais_words(cloud: Cloud, name: str) -> None:
    fake = await cloud.add(name)
    fake.script = Script(body=ANSWERS[name])
    response = await cloud.fleet.post(model=MODELS[name])
    assert response.status_code == 200, response.text
    document = response.json()
    assert document["model"] == MODELS[name]
    assert document["choices"][0]["message"]["content"] == "Hello"
    assert document["choices"][0]["finish_reason"] == "stop"
    assert document["usage"]["completion_tokens"] > 0
    assert response.headers["x-llmlb-provider"] == response.headers["x-llmlb-node"] == name
    entry = (await cloud.fleet.settled())[0]
    assert (entry.node_id, entry.node_name, entry.outcome) == (None, name, "success")
    assert entry.model == entry.served_model == MODELS[name]
    assert entry.token_source == "usage"
    assert entry.prompt_tokens == document["usage"]["prompt_tokens"]
    assert [attempt.selection_reason for attempt in entry.attempts] == ["prefix"]
    assert cloud.fleet.key.encode() not in fake.inferences[0].body
    assert cloud.fleet.key not in str(fake.inferences[0].headers)


async def test_openai_gets_the_clients_bytes_and_gives_its_own(cloud: Cloud) -> None:
    fake = await cloud.add("openai")
    fake.script = Script(body=ANSWERS["openai"])
    body = b'{ "messages":[{"role":"user","content":"\\u00e9"}],\n"model" : "openai:gpt-4o", "tomorrow":{"x":1.0} }'
    response = await cloud.fleet.client.post("/v1/chat/completions", content=body, headers=bearer(cloud.fleet.key))
    assert fake.inferences[0].body == body.replace(b'"openai:gpt-4o"', b'"gpt-4o"')
    assert response.content == json.dumps(ANSWERS["openai"]).encode().replace(b'"gpt-4o"', b'"openai:gpt-4o"')


async def test_openai_streams_with_the_prefix_restored(cloud: Cloud) -> None:
    fake = await cloud.add("openai")
    fake.script = Script(events=openai_stream("gpt-4o", "Hel", "lo"))
    events = await cloud.fleet.events(model="openai:gpt-4o")
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert {chunk["model"] for chunk in chunks} == {"openai:gpt-4o"}
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "Hello"
    assert fake.asked["stream_options"] == {"include_usage": True}
    entry = (await cloud.fleet.settled())[0]
    assert (entry.prompt_tokens, entry.completion_tokens, entry.stream) == (9, 3, True)


async def test_the_slip_of_the_pen_is_understood(cloud: Cloud) -> None:
    fake = await cloud.add("anthropic")
    fake.script = Script(body=ANSWERS["anthropic"])
    response = await cloud.fleet.post(model="ahtnorpic:claude-sonnet-4-5")
    assert response.json()["model"] == "ahtnorpic:claude-sonnet-4-5"
    assert fake.asked["model"] == "claude-sonnet-4-5"
    only = await cloud.fleet.mint("only", allowed_models=["anthropic:claude-sonnet-4-5"])
    assert (await cloud.fleet.post(key=only, model="ahtnorpic:claude-sonnet-4-5")).status_code == 200
    assert (await cloud.fleet.post(key=only, model="ahtnorpic:claude-opus-4-5")).status_code == 403


async def test_without_a_key_401_names_the_provider(fleet: Fleet) -> None:
    response = await fleet.post(model="google:gemini-2.5-flash")
    assert response.status_code == 401
    error = error_of(response)
    assert (error["code"], error["provider"], error["type"]) == (
        "provider_not_configured",
        "google",
        "authentication_error",
    )
    assert "google" in error["message"]
    entry = (await fleet.settled())[0]
    assert (entry.status, entry.outcome, entry.attempts) == (401, "client_error", [])


async def test_a_disabled_provider_is_not_configured(cloud: Cloud) -> None:
    fake = await cloud.add("openai", enabled=False)
    assert (await cloud.fleet.post(model="openai:gpt-4o")).status_code == 401
    assert not fake.seen


async def test_a_prefix_alone_is_no_model(cloud: Cloud) -> None:
    await cloud.add("openai")
    response = await cloud.fleet.post(model="openai:")
    assert (response.status_code, error_of(response)["param"]) == (400, "model")


async def test_any_other_colon_belongs_to_the_name(fleet: Fleet) -> None:
    await fleet.add("llama3.2:3b")
    assert (await fleet.post(model="llama3.2:3b")).status_code == 200
    assert error_of(await fleet.post(model="mistral:large"))["code"] == "model_not_found"


async def test_never_a_fallback(cloud: Cloud) -> None:
    """Neither from the nodes to a provider, nor from a provider to the nodes."""
    fake = await cloud.add("openai")
    node = await cloud.fleet.add("gpt-4o", "openai:gpt-4o")
    await node.stop()
    assert (await cloud.fleet.post(model="gpt-4o")).status_code == 502
    assert not fake.seen
    await cloud.add("anthropic")
    await cloud.providers["anthropic"].stop()
    assert (await cloud.fleet.post(model="anthropic:x")).status_code == 502


async def test_a_list_of_allowed_models_holds_with_the_prefix(cloud: Cloud) -> None:
    fake = await cloud.add("openai")
    fake.script = Script(body=ANSWERS["openai"])
    only = await cloud.fleet.mint("only", allowed_models=["openai:gpt-4o", "model-a"])
    assert (await cloud.fleet.post(key=only, model="openai:gpt-4o")).status_code == 200
    for model in ("openai:o3", "gpt-4o", "google:gpt-4o"):
        assert error_of(await cloud.fleet.post(key=only, model=model))["code"] == "model_not_allowed"
    listed = await cloud.fleet.client.get("/v1/models", headers=bearer(only))
    assert [model["id"] for model in listed.json()["data"]] == ["openai:gpt-4o"]


async def test_listed_models(cloud: Cloud) -> None:
    await cloud.fleet.add("model-a")
    for name in MODELS:
        await cloud.add(name)
    listed = (await cloud.fleet.client.get("/v1/models", headers=bearer(cloud.fleet.key))).json()["data"]
    owners = {model["id"]: model["owned_by"] for model in listed}
    assert owners == {
        "anthropic:claude-sonnet-4-5": "anthropic",
        "google:gemini-2.5-flash": "google",
        "google:gemini-embedding-001": "google",
        "model-a": owners["model-a"],
        "openai:gpt-4o": "openai",
        "openai:text-embedding-3-small": "openai",
    }
    one = await cloud.fleet.client.get("/v1/models/google:gemini-2.5-flash", headers=bearer(cloud.fleet.key))
    assert one.json()["context_length"] == 1048576
    assert "embedding" in next(model for model in listed if model["id"].startswith("openai:text"))["capabilities"]
    missing = await cloud.fleet.client.get("/v1/models/google:none", headers=bearer(cloud.fleet.key))
    assert missing.status_code == 404


async def test_an_alias_may_mean_a_providers_model(cloud: Cloud) -> None:
    fake = await cloud.add("openai")
    fake.script = Script(body=ANSWERS["openai"])

    def name_it() -> None:
        ModelAlias.objects.create(alias="best", model_id="openai:gpt-4o")
        publish("models")

    await sync_to_async(name_it)()
    response = await cloud.fleet.post(model="best")
    assert (response.json()["model"], fake.asked["model"]) == ("best", "gpt-4o")
    listed = (await cloud.fleet.client.get("/v1/models", headers=bearer(cloud.fleet.key))).json()["data"]
    assert "best" in [model["id"] for model in listed]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("status", [400, 404, 429, 500, 503, 529])
async def test_a_providers_error_is_passed_on_once(cloud: Cloud, name: str, status: int) -> None:
    fake = await cloud.add(name)
    fake.script = Script(status=status, body=ERRORS[name](status, "Too much."), headers={"retry-after": "7"})
    response = await cloud.fleet.post(model=MODELS[name])
    assert response.status_code == status
    error = error_of(response)
    assert (error["message"], error["provider"]) == ("Too much.", name)
    assert isinstance(error["code"], str)
    assert response.headers["retry-after"] == "7"
    assert len(fake.inferences) == 1, "never tried again"
    entry = (await cloud.fleet.settled())[0]
    assert (entry.status, entry.error_code) == (status, "provider_error")
    assert entry.outcome == ("client_error" if status in (400, 404) else "node_error")
    assert "Too much" not in entry.error_message


@pytest.mark.parametrize("name", MODELS)
async def test_a_refused_key_is_not_told(cloud: Cloud, name: str) -> None:
    fake = await cloud.add(name)
    await CloudProvider.objects.filter(name=name).aupdate(api_key="another-key")
    await sync_to_async(publish)("models")
    await cloud.fleet.engine.control.catch_up(timeout=5)
    response = await cloud.fleet.post(model=MODELS[name])
    assert response.status_code == 401
    assert KEY not in response.text
    assert "another-key" not in response.text
    assert error_of(response)["provider"] == name
    assert len(fake.inferences) == 1


async def test_an_error_that_is_no_json(cloud: Cloud) -> None:
    fake = await cloud.add("google")
    fake.script = Script(status=502, body="<html>at http://10.1.2.3</html>")
    response = await cloud.fleet.post(model="google:gemini-2.5-flash")
    assert response.status_code == 502
    assert "10.1.2.3" not in response.text


@pytest.mark.parametrize("body", [{}, [], {"candidates": []}, "<p>Hello</p>", {"candidates": [{"index": "x"}]}])
@pytest.mark.parametrize("name", MODELS)
async def test_an_answer_that_is_none_is_502(cloud: Cloud, name: str, body: Any) -> None:
    fake = await cloud.add(name)
    fake.script = Script(body=body)
    response = await cloud.fleet.post(model=MODELS[name])
    assert (response.status_code, error_of(response)["code"]) == (502, "provider_connection_error")


async def test_a_redirect_is_502(cloud: Cloud) -> None:
    fake = await cloud.add("openai")
    fake.script = Script(status=302, body={}, headers={"location": "http://10.0.0.1/"})
    response = await cloud.fleet.post(model="openai:gpt-4o")
    assert response.status_code == 502
    assert "location" not in response.headers


async def test_a_provider_that_cannot_be_reached_is_502(cloud: Cloud) -> None:
    fake = await cloud.add("openai")
    await fake.stop()
    response = await cloud.fleet.post(model="openai:gpt-4o")
    error = error_of(response)
    assert (response.status_code, error["code"], error["provider"]) == (502, "provider_connection_error", "openai")
    assert fake.url.removeprefix("http://") not in response.text
    assert (await cloud.fleet.settled())[0].outcome == "node_error"


async def test_a_silent_provider_is_504(cloud: Cloud) -> None:
    fake = await cloud.add("openai")
    fake.script = Script(silent=True)
    table = cloud.fleet.engine.table
    impatient = [replace(provider, timeout=0.2) for provider in table.providers.values()]
    cloud.fleet.engine.state.install(table.with_providers(impatient, {}))
    response = await cloud.fleet.post(model="openai:gpt-4o")
    assert (response.status_code, error_of(response)["code"]) == (504, "provider_timeout")


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_client_that_hangs_up_ends_the_providers_work(cloud: Cloud, streaming: bool) -> None:
    fake = await cloud.add("openai")
    fake.script = Script(events=openai_stream("gpt-4o", *"abcdefgh"), interval=1) if streaming else Script(silent=True)
    body = chat_body("openai:gpt-4o", stream=streaming)

    async def ask() -> None:
        await cloud.fleet.client.post("/v1/chat/completions", content=body, headers=bearer(cloud.fleet.key))

    asking = asyncio.create_task(ask())
    await eventually(lambda: fake.inferences)
    asking.cancel()
    await eventually(lambda: fake.inferences[0].aborted, timeout=1)
    assert (await cloud.fleet.settled())[0].outcome == "cancelled"


async def test_a_stream_that_is_cut_ends_with_an_error_and_without_done(cloud: Cloud) -> None:
    fake = await cloud.add("openai")
    fake.script = Script(events=openai_stream("gpt-4o", "Hel", "lo"), cut_after=2, interval=0.05)
    events = await cloud.fleet.events(model="openai:gpt-4o")
    assert "[DONE]" not in events
    assert json.loads(events[-1])["error"]["provider"] == "openai"
    entry = (await cloud.fleet.settled())[0]
    assert (entry.outcome, entry.error_code) == ("broken", "provider_connection_error")
    assert len(fake.inferences) == 1


async def test_what_a_provider_has_no_counterpart_of_is_501(cloud: Cloud) -> None:
    await cloud.add("google")
    await cloud.add("anthropic")
    for model, path in (("google:g", "/v1/completions"), ("anthropic:c", "/v1/embeddings")):
        response = await cloud.fleet.post(path, model=model, prompt="x", input="x")
        assert (response.status_code, error_of(response)["code"]) == (501, "not_supported_by_provider")


async def test_openai_embeddings_and_completions_go_where_they_belong(cloud: Cloud) -> None:
    fake = await cloud.add("openai")
    usage = {"prompt_tokens": 2, "total_tokens": 2}
    fake.script = Script(body={"object": "list", "data": [{"embedding": [0.5]}], "model": "e", "usage": usage})
    response = await cloud.fleet.post("/v1/embeddings", model="openai:e", input="x")
    assert (response.json()["model"], fake.inferences[-1].path) == ("openai:e", "/v1/embeddings")
    fake.script = Script(body={"object": "text_completion", "model": "i", "choices": [{"text": "y"}], "usage": usage})
    response = await cloud.fleet.post("/v1/completions", model="openai:i", prompt="x")
    assert (response.json()["model"], fake.inferences[-1].path) == ("openai:i", "/v1/completions")


async def test_our_account_there_is_nobodys_business(cloud: Cloud) -> None:
    fake = await cloud.add("openai")
    fake.script = Script(body=ANSWERS["openai"], headers={"openai-organization": "org-1", "set-cookie": "a=b"})
    response = await cloud.fleet.post(model="openai:gpt-4o")
    assert not {"openai-organization", "set-cookie"} & set(response.headers)


async def test_parameters_are_checked_and_the_key_comes_first(cloud: Cloud) -> None:
    assert (await cloud.fleet.post(model="openai:gpt-4o", temperature=9)).status_code == 401
    fake = await cloud.add("openai")
    assert error_of(await cloud.fleet.post(model="openai:gpt-4o", temperature=9))["param"] == "temperature"
    assert not fake.inferences


async def test_providers_are_counted(cloud: Cloud) -> None:
    fake = await cloud.add("openai")
    fake.script = Script(body=ANSWERS["openai"])
    await cloud.fleet.post(model="openai:gpt-4o")
    fake.script = Script(status=429, body=ERRORS["openai"](429, "Slow down."))
    await cloud.fleet.post(model="openai:gpt-4o")
    await cloud.fleet.settled(2)
    text = (await cloud.fleet.client.get("/metrics", headers=bearer(cloud.fleet.key))).text
    assert 'cloud_requests_total{provider="openai",status="200"} 1.0' in text
    assert 'cloud_requests_total{provider="openai",status="429"} 1.0' in text
    assert 'cloud_request_latency_seconds_count{provider="openai"} 2.0' in text


async def test_nothing_of_it_needs_a_node_or_waits_for_one(cloud: Cloud) -> None:
    """A full queue does not hold up what no node is asked for."""
    fake = await cloud.add("openai")
    fake.script = Script(events=openai_stream("gpt-4o", *"abc"), interval=0.05)
    answers = await asyncio.gather(*[cloud.fleet.events(model="openai:gpt-4o") for _ in range(50)])
    assert all(events[-1] == "[DONE]" for events in answers)
    assert not cloud.fleet.engine.state.live.in_flight
