"""One request through the gateway: what goes in, what comes out, what is written down."""

from __future__ import annotations

import json
import os

from routing.gateway import attempt, exchange
from tests.routing.conftest import Fleet, MakeFleet, bearer


async def test_it_works(fleet: Fleet) -> None:
    node = await fleet.add("model-a")
    response = await fleet.post()
    assert response.status_code == 200
    assert response.json()["model"] == "model-a"
    assert response.headers["x-llmlb-node"] == "node-1"
    assert response.headers["x-llmlb-attempts"] == "1"
    assert len(node.inferences) == 1


async def test_a_stream_ends_whole(fleet: Fleet) -> None:
    await fleet.add("model-a")
    events = await fleet.events()
    assert events[-1] == "[DONE]"
    assert all(json.loads(event)["choices"] for event in events[:-1]), "our own usage chunk must not be seen"


async def test_usage_chunk_is_kept_for_who_asked(fleet: Fleet) -> None:
    await fleet.add("model-a")
    events = await fleet.events(stream_options={"include_usage": True})
    assert json.loads(events[-2])["usage"]["completion_tokens"] > 0


async def test_the_row_tells_everything(fleet: Fleet) -> None:
    await fleet.add("model-a")
    response = await fleet.post()
    (entry,) = await fleet.settled()
    usage = response.json()["usage"]
    assert (entry.kind, entry.model, entry.node_name, entry.status) == ("chat", "model-a", "node-1", 200)
    assert (entry.prompt_tokens, entry.completion_tokens) == (usage["prompt_tokens"], usage["completion_tokens"])
    assert (entry.token_source, entry.outcome, len(entry.attempts)) == ("usage", "success", 1)
    assert entry.api_key_name == "tests"
    assert entry.client_ip == "127.0.0.1"
    assert entry.response_body == response.content


async def test_the_key_never_reaches_the_node(fleet: Fleet) -> None:
    node = await fleet.add("model-a", api_key="the-node-key")
    await fleet.client.post(
        "/v1/chat/completions",
        json={"model": "model-a", "messages": []},
        headers={**bearer(fleet.key), "X-API-Key": fleet.key, "Cookie": "a=b"},
    )
    headers = node.inferences[0].headers
    assert headers["authorization"] == "Bearer the-node-key"
    assert fleet.key not in str(headers)
    assert "cookie" not in headers


async def test_no_header_is_long_enough_to_make_a_node_hang_up(fleet: Fleet) -> None:
    node = await fleet.add("model-a")
    headers = {**bearer(fleet.key), "User-Agent": "a" * 30_000, "traceparent": "00-short-01"}
    response = await fleet.client.post("/v1/chat/completions", json={"model": "model-a"}, headers=headers)
    assert response.status_code == 200
    assert node.inferences[0].headers["traceparent"] == "00-short-01"
    assert "user-agent" not in node.inferences[0].headers


async def test_a_header_that_no_node_is_told_is_not_remembered(fleet: Fleet) -> None:
    await fleet.add("model-a")
    kept = set()
    for letter in "abc":
        headers = {**bearer(fleet.key), "User-Agent": letter * 2000}
        await fleet.client.post("/v1/chat/completions", json={"model": "model-a"}, headers=headers)
        kept.add(attempt._as_told.cache_info().currsize)
    assert len(kept) == 1


async def test_a_node_is_told_each_clients_own_headers(fleet: Fleet) -> None:
    node = await fleet.add("model-a")
    of_clients = [{"User-Agent": "one", "tracestate": "a=1"}, {"User-Agent": "two"}, {"User-Agent": "one"}]
    for headers in of_clients:
        body = {"model": "model-a", "messages": []}
        await fleet.client.post("/v1/chat/completions", json=body, headers={**bearer(fleet.key), **headers})
    told = [(seen.headers["user-agent"], seen.headers.get("tracestate")) for seen in node.inferences]
    assert told == [("one", "a=1"), ("two", None), ("one", None)]
    assert len({seen.headers["x-request-id"] for seen in node.inferences}) == 3


def test_new_request_ids_are_drawn_for_each_process_by_itself() -> None:
    ours = [exchange.new_request_id() for _ in range(1000)]
    assert all(len(id) == 32 and int(id, 16) >= 0 for id in ours)
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.write(writer, "".join(exchange.new_request_id() for _ in range(20)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reader, 20 * 32).decode()
    ours += [exchange.new_request_id() for _ in range(1000)]
    assert len(set(ours) | {theirs[start : start + 32] for start in range(0, len(theirs), 32)}) == 2020


async def test_the_speed_of_nodes_is_learned_where_the_mode_heeds_it(make_fleet: MakeFleet) -> None:
    fleet = await make_fleet(load_balancer_mode="tps")
    await fleet.add("model-a")
    await fleet.post()
    (entry,) = await fleet.settled()
    assert entry.tokens_per_second
    assert fleet.engine.state.live.tokens_per_second == {(entry.node_id, "model-a"): entry.tokens_per_second}
