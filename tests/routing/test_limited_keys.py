"""A key with limits at a real gateway: what it is admitted, what it is told, and what it gets back."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from typing import Any

import httpx
import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from access.audit import SYSTEM
from access.models import ApiKey
from access.services import update_api_key
from history.models import TokenTotal
from nodes.fake_node import Behaviour
from routing.core.limits import Reading
from routing.core.usage import LOOKED_AT_BYTES
from routing.gateway import account
from routing.gateway.admit import LONGEST_ANSWER, LONGEST_CONTEXT, UNBOUNDED_ANSWER, expected_tokens
from routing.protocols.base import Call
from routing.protocols.registry import APIS
from tests.routing.conftest import Fleet, MakeFleet, bearer, eventually
from tests.routing.messages_support import VERSION


async def limited(fleet: Fleet, *more: dict[str, Any], **limit: int) -> str:
    return await fleet.mint("limited", limits=[limit, *more] if limit else list(more))


async def reading(fleet: Fleet, name: str = "limited") -> Reading:
    principal = next(each for each in fleet.engine.principals.values() if each.name == name)
    assert principal.limits is not None
    return (await fleet.engine.limits.read(principal.limits.all))[0]


def retry_after(answer: httpx.Response) -> float:
    return int(answer.headers["retry-after-ms"]) / 1000


async def test_a_burst_is_admitted_exactly_and_the_rest_told_when(fleet: Fleet) -> None:
    await fleet.add("model-a", limit=0)
    key = await limited(fleet, requests_per_minute=30)
    answers = await asyncio.gather(*(fleet.post(key=key) for _ in range(60)))
    assert sorted(answer.status_code for answer in answers) == [200] * 30 + [429] * 30
    refused = next(answer for answer in answers if answer.status_code == 429)
    error = refused.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("requests", "rate_limit_exceeded", None)
    assert "Limit 30, Used 30, Requested 1" in error["message"]
    assert 55 < retry_after(refused) <= 60.25
    assert int(refused.headers["retry-after"]) - 1 <= retry_after(refused) <= int(refused.headers["retry-after"])
    assert refused.headers["x-ratelimit-limit-requests"] == "30"
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert refused.headers["x-ratelimit-reset-requests"].startswith(("1m", "59s", "58s", "57s"))
    assert "x-ratelimit-limit-tokens" not in refused.headers
    metrics = (await fleet.client.get("/metrics", headers=bearer(fleet.key))).text
    assert 'llmlb_limit_refusals_total{kind="chat",limit="requests"} 30.0' in metrics


async def test_each_answer_tells_what_is_left(fleet: Fleet) -> None:
    await fleet.add("model-a")
    key = await limited(fleet, requests_per_minute=10, tokens_per_minute=10_000)
    for left in (9, 8):
        answer = await fleet.post(key=key, max_tokens=50)
        assert answer.headers["x-ratelimit-remaining-requests"] == str(left)
        assert answer.headers["x-ratelimit-limit-tokens"] == "10000"
        assert 9_800 < int(answer.headers["x-ratelimit-remaining-tokens"]) < 9_950
        assert answer.headers["x-ratelimit-reset-tokens"] == "1m1s"
    streamed = await fleet.post(key=key, stream=True)
    assert streamed.headers["x-ratelimit-remaining-requests"] == "7"


async def test_a_key_without_limits_hears_nothing_of_them(fleet: Fleet) -> None:
    await fleet.add("model-a")
    answer = await fleet.post()
    assert not [name for name in answer.headers if "ratelimit" in name]
    message = await fleet.post("/v1/responses", input="hello")
    assert not [name for name in message.headers if "ratelimit" in name]


async def test_a_request_costs_what_it_took_not_what_it_might_have(fleet: Fleet) -> None:
    await fleet.add("model-a")
    key = await limited(fleet, tokens_per_minute=100_000, tokens_per_day=100_000)
    answer = await fleet.post(key=key, max_tokens=90_000)
    took = answer.json()["usage"]["total_tokens"]
    now = await reading(fleet)
    assert (now.tokens, now.day, now.month) == (took, took, took)
    assert (now.running, now.reserved) == (0, 0)


async def test_a_stream_is_settled_when_it_ends(fleet: Fleet) -> None:
    await fleet.add("model-a")
    key = await limited(fleet, tokens_per_day=100_000)
    await fleet.post(key=key, stream=True)
    (entry,) = await fleet.settled()
    assert (await reading(fleet)).day == entry.total_tokens


@pytest.mark.parametrize("behaviour", [Behaviour(status=500), Behaviour(mode="cut_before_headers")])
async def test_what_a_node_failed_at_is_given_back(fleet: Fleet, behaviour: Behaviour) -> None:
    await fleet.add("model-a", behaviour=behaviour)
    key = await limited(fleet, requests_per_minute=2, tokens_per_minute=10_000, tokens_per_day=10_000)
    assert (await fleet.post(key=key)).status_code >= 500
    assert set(await reading(fleet)) == {0}


async def test_what_no_node_can_serve_is_given_back(fleet: Fleet) -> None:
    await fleet.add("model-a")
    key = await limited(fleet, requests_per_minute=1)
    for _ in range(3):
        assert (await fleet.post(key=key, model="model-x")).status_code == 404


async def test_requests_at_once_count_until_their_last_byte(fleet: Fleet) -> None:
    fake = await fleet.add("model-a", limit=0, behaviour=Behaviour(latency=30.0))
    key = await limited(fleet, concurrent_requests=2)
    running = [asyncio.create_task(fleet.post(key=key)) for _ in range(2)]
    await eventually(lambda: fake.in_flight == 2)
    refused = await fleet.post(key=key)
    assert refused.status_code == 429
    assert "concurrent" in refused.json()["error"]["message"]
    assert retry_after(refused) == 1
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await eventually(lambda: fleet.recorder.entries[2:])
    assert (await reading(fleet)).running == 0
    fake.behaviour.latency = 0
    assert (await fleet.post(key=key)).status_code == 200


async def test_a_used_up_budget_is_another_error_than_a_rate(fleet: Fleet) -> None:
    await fleet.add("model-a")
    key = await limited(fleet, tokens_per_day=12)
    assert (await fleet.post(key=key)).status_code == 200
    refused = await fleet.post(key=key)
    while refused.status_code == 200:
        refused = await fleet.post(key=key)
    error = refused.json()["error"]
    assert refused.status_code == 429
    assert (error["type"], error["code"]) == ("insufficient_quota", "insufficient_quota")
    assert 1 <= int(refused.headers["retry-after"]) <= 24 * 3600


@pytest.mark.parametrize(("says", "budget", "bounds"), [(5, 200, {"max_tokens": 5}), (5000, 6000, {})])
async def test_a_budget_is_overshot_by_one_request_at_most(
    fleet: Fleet, says: int, budget: int, bounds: dict[str, Any]
) -> None:
    await fleet.add("model-a", limit=0, behaviour=Behaviour(chunks=says, latency=0.02))
    key = await limited(fleet, tokens_per_day=budget)
    took: list[int] = []
    while answered := [
        answer
        for answer in await asyncio.gather(*(fleet.post(key=key, **bounds) for _ in range(10)))
        if answer.status_code == 200
    ]:
        took += [answer.json()["usage"]["total_tokens"] for answer in answered]
    assert budget <= sum(took) < budget + max(took)


async def test_who_waits_for_what_runs_is_told_what_is_reserved(fleet: Fleet) -> None:
    fake = await fleet.add("model-a", limit=0, behaviour=Behaviour(latency=30.0))
    key = await limited(fleet, tokens_per_day=10_000)
    running = asyncio.create_task(fleet.post(key=key))
    await eventually(lambda: fake.in_flight == 1)
    refused = await fleet.post(key=key, max_tokens=5)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert "reserved by running requests. Limit 10000, Used 10000" in refused.json()["error"]["message"]
    assert retry_after(refused) == 1
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize(
    ("path", "more", "answer", "most"),
    [
        ("chat/completions", {"max_tokens": 70}, 70, 70),
        ("chat/completions", {"max_tokens": 70, "n": 3}, 210, 210),
        ("chat/completions", {"max_tokens": 900, "max_completion_tokens": 70}, 70, 900),
        ("chat/completions", {"n": 2}, 2 * UNBOUNDED_ANSWER, 2 * LONGEST_ANSWER),
        ("chat/completions", {"max_tokens": "many"}, UNBOUNDED_ANSWER, LONGEST_ANSWER),
        ("completions", {"max_tokens": 70, "prompt": "one [1]"}, 70, 70),
        ("completions", {"max_tokens": 70, "prompt": ["one", "two"], "n": 2}, 280, 280),
        ("completions", {"max_tokens": 70, "prompt": [1, 2, 3]}, 70, 70),
        ("completions", {"max_tokens": 70, "prompt": [[1, 2], [3]], "best_of": 5}, 700, 700),
        ("responses", {"max_output_tokens": 70}, 70, 70),
        ("responses", {"max_output_tokens": 70, "previous_response_id": "resp_1"}, 70, 70 + LONGEST_CONTEXT),
        ("messages", {"max_tokens": 70, "messages": []}, 70, 70),
        ("messages/count_tokens", {"messages": []}, 0, 0),
        ("embeddings", {"input": "Hello"}, 0, 0),
        ("images/generations", {"prompt": "a cat"}, 0, LONGEST_ANSWER),
    ],
)
def test_what_a_request_is_expected_to_take_and_what_it_may_take(
    path: str, more: dict[str, Any], answer: int, most: int
) -> None:
    api, body = APIS[f"/v1/{path}"], json.dumps({"model": "m", **more}).encode()
    call = Call(api.path, body, api.read_envelope(body), asked_model="m", model="m")
    prompt = len(body) // 4 if api.infers else 0
    assert expected_tokens(api, call) == (prompt + answer, 4 * prompt + most)


async def test_a_budget_is_remembered_by_the_history(make_fleet: MakeFleet) -> None:
    fleet = await make_fleet()
    await fleet.add("model-a", "model-b")
    key = await limited(fleet, {"model": "model-a", "tokens_per_month": 500}, tokens_per_day=500)
    found = await ApiKey.objects.aget(name="limited")
    await TokenTotal.objects.acreate(
        day=timezone.now().date(),
        node_id=1,
        model="model-a",
        api_key_id=found.pk,
        prompt_tokens=300,
        completion_tokens=250,
    )
    again = await make_fleet()
    refused = await again.post(key=key)
    assert refused.status_code == 429
    assert "Used 550" in refused.json()["error"]["message"]
    assert (await again.post(key=key, model="model-b")).status_code == 429, "the key's own budget is over all models"


async def test_a_limit_of_one_model_leaves_the_others(fleet: Fleet) -> None:
    await fleet.add("model-a", "model-b")
    key = await limited(fleet, {"model": "model-a", "requests_per_minute": 1})
    assert (await fleet.post(key=key)).status_code == 200
    refused = await fleet.post(key=key)
    assert refused.status_code == 429
    assert "'model-a'" in refused.json()["error"]["message"]
    answer = await fleet.post(key=key, model="model-b")
    assert answer.status_code == 200
    assert "x-ratelimit-limit-requests" not in answer.headers


async def test_of_two_limits_the_one_with_less_left_is_told(fleet: Fleet) -> None:
    await fleet.add("model-a")
    of_model = {"model": "model-a", "requests_per_minute": 5, "tokens_per_minute": 100_000}
    key = await limited(fleet, of_model, requests_per_minute=10, tokens_per_minute=10_000)
    headers = (await fleet.post(key=key)).headers
    assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == ("5", "4")
    assert headers["x-ratelimit-limit-tokens"] == "10000"


async def test_anthropics_clients_are_told_in_their_shape(fleet: Fleet) -> None:
    await fleet.add("model-a")
    key = await limited(fleet, requests_per_minute=1)
    body = {"model": "model-a", "max_tokens": 5, "messages": [{"role": "user", "content": "hello"}]}
    headers = {**bearer(key), **VERSION}
    answer = await fleet.client.post("/v1/messages", json=body, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["anthropic-ratelimit-requests-limit"] == "1"
    assert answer.headers["anthropic-ratelimit-requests-remaining"] == "0"
    reset = datetime.fromisoformat(answer.headers["anthropic-ratelimit-requests-reset"])
    assert 58 < (reset - timezone.now()).total_seconds() <= 62
    assert "anthropic-ratelimit-tokens-limit" not in answer.headers
    refused = await fleet.client.post("/v1/messages", json=body, headers=headers)
    assert refused.status_code == 429
    assert refused.json()["type"] == "error"
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert retry_after(refused) > 50


async def test_the_limit_comes_before_what_is_wrong_with_the_request_but_not_before_the_model(fleet: Fleet) -> None:
    await fleet.add("model-a")
    key = await limited(fleet, requests_per_minute=1)
    assert (await fleet.post(key=key)).status_code == 200
    assert (await fleet.post(key=key, temperature=9)).status_code == 429
    assert (await fleet.post(key=key, model="")).status_code == 400
    assert (await fleet.post(key=key, model="openai:gpt-4o")).status_code == 429


async def test_a_changed_limit_holds_for_the_next_request(fleet: Fleet) -> None:
    await fleet.add("model-a")
    key = await limited(fleet, requests_per_minute=1)
    assert (await fleet.post(key=key)).status_code == 200
    assert (await fleet.post(key=key)).status_code == 429
    found = await ApiKey.objects.select_related("owner").aget(name="limited")
    await sync_to_async(update_api_key)(found, actor=SYSTEM, limits=[{"requests_per_minute": 3}])
    assert [(await fleet.post(key=key)).status_code for _ in range(3)] == [200, 200, 429]
    await sync_to_async(update_api_key)(found, actor=SYSTEM, limits=[])
    assert (await fleet.post(key=key)).status_code == 200


async def test_what_is_reserved_is_given_back_even_if_the_row_fails(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fleet.add("model-a")
    key = await limited(fleet, concurrent_requests=1)

    def fail(*args: Any) -> None:
        raise LookupError("no row")

    with monkeypatch.context() as patched:
        patched.setattr(account, "entry_of", fail)
        assert (await fleet.post(key=key)).status_code == 200
    assert (await reading(fleet)).running == 0
    assert (await fleet.post(key=key)).status_code == 200


async def test_a_row_is_not_lost_for_an_estimate(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(document: bytes) -> int:
        raise ValueError("no text")

    monkeypatch.setattr(account, "estimate_document", fail)
    await fleet.add("model-a", behaviour=Behaviour(tells_usage=False))
    assert (await fleet.post(stream=True, padding="x" * LOOKED_AT_BYTES)).status_code == 200
    (entry,) = await fleet.settled()
    assert (entry.status, entry.token_source, entry.prompt_tokens) == (200, "estimated", 0)
