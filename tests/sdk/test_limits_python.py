"""The official Python SDKs meet a limit: the errors that they know, with the headers that they read."""

from __future__ import annotations

import asyncio

import anthropic
import openai
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from tests.routing.conftest import Fleet


async def test_openai_sees_a_rate_limit(fleet: Fleet) -> None:
    await fleet.add("model-a")
    key = await fleet.mint("limited", limits=[{"requests_per_minute": 1, "tokens_per_minute": 1000}])
    async with AsyncOpenAI(base_url=f"{fleet.url}/v1", api_key=key, max_retries=0) as client:
        raw = await client.chat.completions.with_raw_response.create(
            model="model-a", messages=[{"role": "user", "content": "hello"}]
        )
        assert raw.headers["x-ratelimit-remaining-requests"] == "0"
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(model="model-a", messages=[{"role": "user", "content": "hello"}])
    error = caught.value
    assert (error.code, error.type) == ("rate_limit_exceeded", "requests")
    assert 0 < float(error.response.headers["retry-after"]) <= 61
    assert error.response.headers["x-ratelimit-limit-tokens"] == "1000"


async def test_openai_sees_a_used_up_budget(fleet: Fleet) -> None:
    await fleet.add("model-a")
    key = await fleet.mint("limited", limits=[{"tokens_per_month": 1}])
    async with AsyncOpenAI(base_url=f"{fleet.url}/v1", api_key=key, max_retries=0) as client:
        await client.chat.completions.create(model="model-a", messages=[{"role": "user", "content": "hello"}])
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(model="model-a", messages=[{"role": "user", "content": "hello"}])
    assert (caught.value.code, caught.value.type) == ("insufficient_quota", "insufficient_quota")


async def test_openai_tries_again_when_it_is_told(fleet: Fleet) -> None:
    """The wait is what the SDK makes of our header: a request that runs is waited for, then the next is served."""
    await fleet.add("model-a", limit=0)
    fleet.nodes[0].behaviour.latency = 0.3
    key = await fleet.mint("limited", limits=[{"concurrent_requests": 1}])
    async with AsyncOpenAI(base_url=f"{fleet.url}/v1", api_key=key, max_retries=3) as client:
        answers = await asyncio.gather(
            *(
                client.chat.completions.create(model="model-a", messages=[{"role": "user", "content": "hello"}])
                for _ in range(2)
            )
        )
    assert [answer.model for answer in answers] == ["model-a", "model-a"]
    assert [entry.status for entry in fleet.recorder.entries].count(429) >= 1


async def test_anthropic_sees_a_rate_limit(fleet: Fleet) -> None:
    await fleet.add("model-a")
    key = await fleet.mint("limited", limits=[{"requests_per_minute": 1}])
    async with AsyncAnthropic(base_url=fleet.url, api_key=key, max_retries=0) as client:
        await client.messages.create(model="model-a", max_tokens=5, messages=[{"role": "user", "content": "hello"}])
        with pytest.raises(anthropic.RateLimitError) as caught:
            await client.messages.create(model="model-a", max_tokens=5, messages=[{"role": "user", "content": "hi"}])
    assert caught.value.response.headers["retry-after"]
    assert caught.value.type == "rate_limit_error"
