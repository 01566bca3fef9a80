"""One installation in several processes: gateways, worker and beat, on PostgreSQL and Redis."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import httpx
import redis

from llmlb_site.lib import health
from llmlb_site.lib.crypto import derived_key
from llmlb_site.lib.relay import CHANNEL
from routing.state.redis_key import SameKey
from routing.state.redis_link import RedisLink
from tests.blackbox.conftest import add_and_route, chat, models
from tests.scaled.conftest import MakeNode, MakeProduct, background
from tests.support.product import ROOT, wait_until


def test_a_node_added_at_one_gateway_serves_at_the_other(gateway: MakeProduct, node: MakeNode) -> None:
    first, second = gateway().start(), gateway().start()
    add_and_route(first, node())
    wait_until(lambda: "model-a" in models(second), seconds=2, what="the other gateway knows the model")
    assert httpx.post(**chat(second), trust_env=False).status_code == 200


def test_a_key_revoked_at_one_gateway_is_refused_at_the_other_within_two_seconds(gateway: MakeProduct) -> None:
    first, second = gateway().start(), gateway().start()
    minted = first.post("/api/api-keys", json={"name": "short-lived", "permissions": ["openai.models.read"]})
    assert minted.status_code == 201, minted.text
    headers = {"Authorization": f"Bearer {minted.json()['key']}"}
    wait_until(lambda: second.get("/v1/models", headers=headers).status_code == 200, seconds=2, what="it is known")
    revoked = first.request("DELETE", f"/api/api-keys/{minted.json()['id']}")
    assert revoked.status_code in (200, 204), revoked.text
    wait_until(lambda: second.get("/v1/models", headers=headers).status_code == 401, seconds=2, what="it is refused")


def test_worker_and_beat_as_processes_take_a_dead_node_out(gateway: MakeProduct, node: MakeNode) -> None:
    running = gateway().start()
    with background(running):
        fake = node()
        add_and_route(running, fake)
        seen = len(fake.seen)
        wait_until(lambda: len(fake.seen) > seen + 1, seconds=90, what="worker and beat have started, and check it")
        fake.behaviour.mode = "hang"
        wait_until(lambda: not models(running), seconds=20, what="the node is out")
        fake.behaviour.mode = "ok"
        wait_until(lambda: "model-a" in models(running), seconds=20, what="the node is back")


def test_what_a_worker_finds_out_is_news_at_once_and_not_only_a_revision(
    gateway: MakeProduct, node: MakeNode, redis_url: str
) -> None:
    running = gateway().start()
    with redis.Redis.from_url(redis_url) as client:
        news: Any = client.pubsub(ignore_subscribe_messages=True)
        news.subscribe(CHANNEL)
        news.get_message(timeout=5)  # that it has subscribed
        fake = node()
        add_and_route(running, fake)
        origins = {origin for origin, _topic, _payload in _heard(news)}
        assert len(origins) == 1, "the gateway alone"
        with background(running):
            fake.behaviour.mode = "hang"
            wait_until(
                lambda: any(origin not in origins and topic == "nodes" for origin, topic, _ in _heard(news)),
                seconds=90,
                what="the worker tells that the node is silent",
            )


def _heard(news: Any) -> list[list[Any]]:
    """What has come since it was last asked, as the relay sends it: origin, topic, payload."""
    messages = iter(lambda: news.get_message(timeout=0.2), None)
    return [json.loads(message["data"]) for message in messages]


def test_gateways_that_start_together_migrate_once(gateway: MakeProduct) -> None:
    both = [gateway().launch(), gateway().launch()]
    for each in both:
        wait_until(each.is_ready, seconds=60, what=f"it is ready; it said:\n{each.output}")
    assert sum("database migrated" in each.output for each in both) == 1
    assert sum("Password" in each.output for each in both) == 1


def test_one_with_another_secret_key_is_refused_in_words(gateway: MakeProduct) -> None:
    first = gateway()
    other = gateway(LLMLB_SECRET_KEY="another secret key, which opens nothing")
    with first:
        assert other.launch().wait() == 1
        assert "another secret key: set LLMLB_SECRET_KEY" in other.output
        assert "Traceback" not in other.output
        worker = [sys.executable, "-m", "celery", "-A", "llmlb_site.celery", "worker", "--pool", "threads"]
        ended = subprocess.run(worker, cwd=ROOT, env=other.environment(), capture_output=True, timeout=60, check=False)
        assert ended.returncode == 1
        assert b"another secret key: set LLMLB_SECRET_KEY" in ended.stderr
        assert first.get("/readyz").json()["failing"] == []
    with other:  # nobody is left who has the first one's
        assert other.is_ready()


async def test_two_that_started_with_different_keys_say_so(redis_url: str, settings: Any) -> None:
    first = RedisLink(redis_url)
    SameKey(first)
    await first.start()
    settings.SECRET_KEY = "another secret key, which opens nothing"
    derived_key.cache_clear()
    second = RedisLink(redis_url)
    SameKey(second)
    try:
        await second.start()
        await second.call("PING")
        assert [part.name for part in health.failing()] == ["secret key"]
    finally:
        for link in (first, second):
            await link.aclose()
        health.forget("secret key")
        derived_key.cache_clear()
