"""Everything that is refused, in the contract's order, with a code and a message of its own (contract, section 6)."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from asgiref.sync import sync_to_async

from access.permissions import Permission
from llmlb_site.lib.events import publish
from models_catalog.models import CatalogModel, ModelAlias
from nodes.models import Node, NodeModel, NodeStatus
from tests.routing.conftest import Fleet, MakeFleet, bearer

CHAT = "/v1/chat/completions"


def code_of(response: httpx.Response) -> tuple[int, str]:
    error = response.json()["error"]
    assert set(error) >= {"message", "type", "param", "code"}, "the shape that SDKs parse"
    return response.status_code, error["code"]


async def test_no_key_and_bad_keys(fleet: Fleet) -> None:
    assert code_of(await fleet.client.post(CHAT, json={})) == (401, "missing_api_key")
    texts = set()
    for key in ("sk_nonsense", "sk_" + "a" * 44, "x" * 200, fleet.key + "x", fleet.key[:-1] + "!"):
        response = await fleet.client.post(CHAT, json={}, headers=bearer(key))
        assert code_of(response) == (401, "invalid_api_key")
        texts.add(response.text)
    assert len(texts) == 1, "one and the same text"


async def test_both_headers_are_accepted(fleet: Fleet) -> None:
    await fleet.add("model-a")
    for headers in ({"X-API-Key": fleet.key}, {"Authorization": f"bearer {fleet.key}"}):
        body = {"model": "model-a", "messages": []}
        assert (await fleet.client.post(CHAT, json=body, headers=headers)).status_code == 200


async def test_a_key_without_the_permission(fleet: Fleet) -> None:
    key = await fleet.mint("reader", Permission.MODELS_READ)
    response = await fleet.client.post(CHAT, content=b"not even JSON", headers=bearer(key))
    assert code_of(response) == (403, "insufficient_permission")
    assert "openai.inference" in response.text
    assert (await fleet.client.get("/v1/models", headers=bearer(key))).status_code == 200


async def test_a_model_that_the_key_may_not_use(fleet: Fleet) -> None:
    await fleet.add("model-a", "model-b")
    key = await fleet.mint("narrow", allowed_models=["model-b"])
    assert code_of(await fleet.post(key=key)) == (403, "model_not_allowed")
    assert (await fleet.post(key=key, model="model-b")).status_code == 200
    listed = await fleet.client.get("/v1/models", headers=bearer(key))
    assert [model["id"] for model in listed.json()["data"]] == ["model-b"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"nul", b"[" * 100_000])
async def test_malformed_json(fleet: Fleet, body: bytes) -> None:
    response = await fleet.client.post(CHAT, content=body, headers=bearer(fleet.key))
    assert code_of(response) == (400, "invalid_json")


@pytest.mark.parametrize("model", [None, "", 7, [], "absent"])
async def test_model_missing(fleet: Fleet, model: Any) -> None:
    body = {} if model == "absent" else {"model": model}
    response = await fleet.client.post(CHAT, json=body, headers=bearer(fleet.key))
    assert code_of(response) == (400, "model_required")
    assert response.json()["error"]["param"] == "model"


async def test_two_models_in_one_body(fleet: Fleet) -> None:
    node = await fleet.add("model-a", "model-b")
    for body in (
        b'{"model":"model-a","model":"model-b"}',
        rb'{"model":"model-a","\u006dodel":"model-b"}',
        rb'{"mode\u006C":"model-a","m\u006fd\u0065l":"model-b"}',
    ):
        response = await fleet.client.post(CHAT, content=body, headers=bearer(fleet.key))
        assert code_of(response) == (400, "duplicate_parameter")
    assert not node.inferences


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_over_the_limit(fleet: Fleet, declared: bool) -> None:
    body = b'{"model":"' + b"a" * (21 * 1024 * 1024) + b'"}'

    async def chunks() -> Any:
        for start in range(0, len(body), 1024 * 1024):
            yield body[start : start + 1024 * 1024]

    content: Any = body if declared else chunks()
    response = await fleet.client.post(CHAT, content=content, headers=bearer(fleet.key))
    assert code_of(response) == (413, "request_too_large")
    assert (await fleet.settled())[0].status == 413


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"n": 9}, "n"),
        ({"n": 0}, "n"),
        ({"n": 1.5}, "n"),
        ({"presence_penalty": 2.1}, "presence_penalty"),
        ({"frequency_penalty": -2.1}, "frequency_penalty"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"stream": "yes"}, "stream"),
    ],
)
async def test_parameters_out_of_range(fleet: Fleet, values: dict[str, Any], param: str) -> None:
    node = await fleet.add("model-a")
    response = await fleet.post(**values)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
    assert not node.inferences


async def test_null_parameters_and_tomorrows_pass(fleet: Fleet) -> None:
    await fleet.add("model-a")
    response = await fleet.post(temperature=None, n=None, stream=None, reasoning_effort="huge", future={"x": 1})
    assert response.status_code == 200


async def test_no_node_at_all_comes_before_an_unknown_model(fleet: Fleet) -> None:
    assert code_of(await fleet.post(model="never-heard-of")) == (503, "no_nodes_available")


async def test_an_unknown_model(fleet: Fleet) -> None:
    await fleet.add("model-a")
    response = await fleet.post(model="Model-A")
    assert code_of(response) == (404, "model_not_found")
    assert response.json()["error"]["message"] == "The model 'Model-A' does not exist"
    assert response.json()["error"]["param"] == "model"


async def _change(**values: Any) -> None:
    def change() -> None:
        Node.objects.filter(name="node-1").update(**values)
        publish("nodes")

    await sync_to_async(change)()


@pytest.mark.parametrize("change", [{"draining": True}, {"enabled": False}, {"status": NodeStatus.OFFLINE}])
async def test_a_known_model_without_a_routable_holder(fleet: Fleet, change: dict[str, Any]) -> None:
    gone = await fleet.add("model-a")
    await fleet.add("model-b")
    await _change(**change)
    response = await fleet.post()
    assert code_of(response) == (503, "no_capable_nodes")
    assert response.json()["error"]["message"] == "No available nodes support model: model-a"
    assert not gone.inferences, "what was changed before the request holds for it"


async def test_a_catalogue_model_that_no_node_has(fleet: Fleet) -> None:
    await fleet.add("model-a")

    def register() -> None:
        CatalogModel.objects.create(model_id="registered")
        publish("models")

    await sync_to_async(register)()
    assert code_of(await fleet.post(model="registered")) == (503, "no_capable_nodes")


async def test_all_holders_excluded(fleet: Fleet) -> None:
    from nodes.services import exclude_model_from_node

    await fleet.add("model-a", "model-b")
    node = await Node.objects.aget(name="node-1")
    await sync_to_async(exclude_model_from_node)(
        node_id=node.pk, model_id="model-a", reason="test", kind="chat", on_connect=False
    )
    assert code_of(await fleet.post()) == (503, "no_capable_nodes")
    listed = await fleet.client.get("/v1/models", headers=bearer(fleet.key))
    assert [model["id"] for model in listed.json()["data"]] == ["model-b"]
    assert (await fleet.post(model="model-b")).status_code == 200


async def test_a_capability_that_the_model_does_not_have(fleet: Fleet) -> None:
    await fleet.add("nomic-embed-text", "model-a")
    response = await fleet.post(model="nomic-embed-text")
    assert code_of(response) == (400, "model_capability_mismatch")
    assert response.json()["error"]["message"] == "Model 'nomic-embed-text' does not support text generation"
    assert (await fleet.post("/v1/embeddings", model="nomic-embed-text", input="x")).status_code == 200
    assert (await fleet.post("/v1/embeddings", input="x")).status_code == 200, "of model-a nothing is known"


async def test_what_an_operator_says_of_a_model_counts(fleet: Fleet) -> None:
    await fleet.add("model-a")

    def say() -> None:
        NodeModel.objects.update(capabilities=["text-to-speech"])
        publish("models")

    await sync_to_async(say)()
    assert code_of(await fleet.post()) == (400, "model_capability_mismatch")


async def test_wrong_method_and_unknown_path(fleet: Fleet) -> None:
    response = await fleet.client.get(CHAT, headers=bearer(fleet.key))
    assert code_of(response) == (405, "method_not_allowed")
    assert response.headers["allow"] == "POST"
    for path in ("/v1/chat", "/v1/responses/compact"):
        assert code_of(await fleet.client.post(path, json={})) == (404, "unknown_url")
    assert code_of(await fleet.client.delete("/v1/models")) == (405, "method_not_allowed")


async def test_every_refusal_has_its_row(fleet: Fleet) -> None:
    await fleet.client.post(CHAT, json={})
    await fleet.post(model="nothing")
    await fleet.add("model-a")
    await fleet.post(model="nothing")
    await fleet.post(temperature=9)
    rows = [(entry.status, entry.outcome, entry.error_code) for entry in await fleet.settled(4)]
    assert rows == [
        (401, "client_error", "missing_api_key"),
        (503, "no_route", "no_nodes_available"),
        (404, "no_route", "model_not_found"),
        (400, "client_error", "invalid_parameter"),
    ]


# --- names -----------------------------------------------------------------------------------------------------------


async def test_an_alias_is_restored_in_the_answer_and_in_the_stream(fleet: Fleet) -> None:
    node = await fleet.add("org/model:7b")

    def name_it() -> None:
        ModelAlias.objects.create(alias="gpt-4o", model_id="org/model:7b")
        publish("models")

    await sync_to_async(name_it)()
    assert (await fleet.post(model="gpt-4o")).json()["model"] == "gpt-4o"
    assert b'"org/model:7b"' in node.inferences[0].body
    response = await fleet.post(model="gpt-4o", stream=True)
    assert "org/model:7b" not in response.text
    assert response.text.count('"gpt-4o"') >= 3
    entry = (await fleet.settled(2))[0]
    assert (entry.model, entry.served_model) == ("gpt-4o", "org/model:7b")
    listed = await fleet.client.get("/v1/models", headers=bearer(fleet.key))
    assert [model["id"] for model in listed.json()["data"]] == ["gpt-4o", "org/model:7b"]


async def test_one_model_by_its_id(fleet: Fleet) -> None:
    await fleet.add("org/model:7b")
    response = await fleet.client.get("/v1/models/org/model:7b", headers=bearer(fleet.key))
    assert response.json()["id"] == "org/model:7b"
    assert code_of(await fleet.client.get("/v1/models/other", headers=bearer(fleet.key))) == (404, "model_not_found")


async def test_no_node_online_is_an_empty_list(fleet: Fleet) -> None:
    response = await fleet.client.get("/v1/models", headers=bearer(fleet.key))
    assert (response.status_code, response.json()) == (200, {"object": "list", "data": []})


async def test_a_request_id_is_taken_if_well_formed_and_made_otherwise(fleet: Fleet) -> None:
    node = await fleet.add("model-a")
    body = {"model": "model-a", "messages": []}
    for given, kept in (("abc-123", True), ("bad id", False), ("x" * 65, False)):
        headers = {**bearer(fleet.key), "X-Request-ID": given}
        response = await fleet.client.post(CHAT, json=body, headers=headers)
        assert (response.headers["x-request-id"] == given) is kept
        assert node.inferences[-1].headers["x-request-id"] == response.headers["x-request-id"]


# --- keys that change ------------------------------------------------------------------------------------------------


async def test_a_revoked_key_is_refused_within_two_seconds(fleet: Fleet) -> None:
    from access.audit import SYSTEM
    from access.models import ApiKey
    from access.services import revoke_api_key

    await fleet.add("model-a")
    key = await fleet.mint("short-lived")
    assert (await fleet.post(key=key)).status_code == 200
    row = await ApiKey.objects.aget(name="short-lived")
    await sync_to_async(revoke_api_key)(row, actor=SYSTEM)
    async with asyncio.timeout(2):
        while (await fleet.post(key=key)).status_code != 401:
            await asyncio.sleep(0.01)


async def test_client_ip_is_forged_by_nobody(make_fleet: MakeFleet) -> None:
    import ipaddress

    forged = {"X-Forwarded-For": "6.6.6.6, 10.1.1.1"}
    plain = await make_fleet()
    await plain.client.post(CHAT, json={}, headers=forged)
    assert (await plain.settled())[0].client_ip == "127.0.0.1"
    proxied = await make_fleet(
        trusted_proxies=(ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("10.0.0.0/8"))
    )
    await proxied.client.post(CHAT, json={}, headers=forged)
    assert (await proxied.settled())[0].client_ip == "6.6.6.6"
