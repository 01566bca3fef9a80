"""The fake node does what it is told: the other tests stand on it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from nodes.fake_node import MODES, Behaviour, FakeNode, Mode, running_fake_node

CHAT = "/v1/chat/completions"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
async def fake() -> AsyncIterator[FakeNode]:
    node = FakeNode(["m", "n"], name="a")
    await node.start()
    yield node
    await node.kill()
    await asyncio.sleep(0.01)


async def ask(fake: FakeNode, path: str = CHAT, **body: Any) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, timeout=2) as client:
        return await client.post(fake.url + path, json={"model": "m", **body})


def events(response: httpx.Response) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


async def test_whole_chat(fake: FakeNode) -> None:
    answer = (await ask(fake, messages=[{"role": "user", "content": "how are you"}])).json()
    assert answer["choices"][0]["message"]["content"] == "a-0 a-1 a-2 a-3 a-4 "
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}


async def test_streamed_chat(fake: FakeNode) -> None:
    found = events(await ask(fake, stream=True, max_tokens=2, stream_options={"include_usage": True}))
    assert found[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [event["choices"][0]["delta"]["content"] for event in found[1:3]] == ["a-0 ", "a-1 "]
    assert found[3]["choices"][0]["finish_reason"] == "length"
    assert found[4]["usage"]["completion_tokens"] == 2
    assert found[5:] == ["[DONE]"]


async def test_embeddings(fake: FakeNode) -> None:
    answer = (await ask(fake, "/v1/embeddings", input=["x", "y"])).json()
    assert [len(item["embedding"]) for item in answer["data"]] == [8, 8]


async def test_unknown_model(fake: FakeNode) -> None:
    assert (await ask(fake, model="other")).status_code == 404


BROKEN: dict[str, type[Exception]] = {
    "hang": httpx.ReadTimeout,
    "garbage": httpx.RemoteProtocolError,
    "cut_before_headers": httpx.RemoteProtocolError,
    "cut_in_body": httpx.RemoteProtocolError,
    "cut_mid_stream": httpx.RemoteProtocolError,
}


@pytest.mark.parametrize("mode", sorted(BROKEN))
@pytest.mark.parametrize("stream", [False, True])
async def test_modes_that_break_the_connection(fake: FakeNode, mode: Mode, stream: bool) -> None:
    fake.behaviour = Behaviour(mode=mode)
    with pytest.raises(BROKEN[mode]):
        await ask(fake, stream=stream)


async def test_a_reset(fake: FakeNode) -> None:
    fake.behaviour = Behaviour(mode="cut_mid_stream", reset=True)
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        await ask(fake, stream=True)


async def test_no_finish(fake: FakeNode) -> None:
    fake.behaviour = Behaviour(mode="no_finish")
    found = events(await ask(fake, stream=True))
    assert found[-1] == "[DONE]"
    assert not any(event["choices"][0]["finish_reason"] for event in found[:-1])


async def test_statuses(fake: FakeNode) -> None:
    fake.behaviour = Behaviour(status=503, error_body={"error": "loading"})
    response = await ask(fake)
    assert (response.status_code, response.json()) == (503, {"error": "loading"})
    fake.behaviour = Behaviour(mode="busy_429")
    assert (await ask(fake)).headers["retry-after"] == "1"
    fake.behaviour = Behaviour(mode="flap")
    assert [(await ask(fake)).status_code for _ in range(3)] == [500, 200, 500]


async def test_limits_of_a_misbehaviour(fake: FakeNode) -> None:
    fake.behaviour = Behaviour(status=500, only_models=("n",), times=1)
    assert (await ask(fake)).status_code == 200
    assert [(await ask(fake, model="n")).status_code for _ in range(2)] == [500, 200]


async def test_half_close_says_nothing(fake: FakeNode) -> None:
    fake.behaviour = Behaviour(mode="half_close")
    reader, writer = await asyncio.open_connection("127.0.0.1", fake.port)
    body = b'{"model": "m"}'
    writer.write(b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (CHAT.encode(), len(body), body))
    answer = await asyncio.wait_for(reader.read(), 2)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"connection: close" not in answer.lower()


async def test_it_sees_the_client_hang_up(fake: FakeNode) -> None:
    fake.behaviour = Behaviour(latency=10)
    with pytest.raises(httpx.ReadTimeout):
        async with httpx.AsyncClient(trust_env=False, timeout=0.1) as client:
            await client.post(fake.url + CHAT, json={"model": "m"})
    await asyncio.sleep(0.05)
    assert fake.seen[-1].aborted
    assert fake.in_flight == 0


async def test_kill_and_return(fake: FakeNode) -> None:
    fake.behaviour = Behaviour(mode="hang")
    waiting = asyncio.create_task(ask(fake))
    await asyncio.sleep(0.1)
    await fake.kill()
    with pytest.raises(httpx.ReadError):
        await waiting
    with pytest.raises(httpx.ConnectError):
        await ask(fake)
    port = fake.port
    fake.behaviour = Behaviour()
    await fake.start()
    assert fake.port == port
    assert (await ask(fake)).status_code == 200


async def test_control_over_http(fake: FakeNode) -> None:
    async with httpx.AsyncClient(base_url=fake.url, trust_env=False) as client:
        assert (await client.post("/_fake", json={"status": 500, "models": ["m"]})).json()["models"] == ["m"]
        assert (await client.post("/_fake", json={"mode": "other"})).status_code == 400
        assert (await client.get("/_fake")).json()["behaviour"]["status"] == 500
    assert (await ask(fake)).status_code == 500


async def test_a_key(fake: FakeNode) -> None:
    fake.api_key = "secret"
    assert (await ask(fake)).status_code == 401


async def test_requests_one_behind_the_other_on_one_connection(fake: FakeNode) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", fake.port)
    writer.write(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
    found = b""
    while found.count(b"HTTP/1.1 200") < 3:
        found += await asyncio.wait_for(reader.read(65536), 2)
    writer.close()


def test_every_mode_is_a_behaviour() -> None:
    assert len({Behaviour(mode=mode).mode for mode in MODES}) == len(MODES)  # type: ignore[arg-type]


def test_in_a_thread() -> None:
    with running_fake_node(["x"], kind="ollama") as fake:
        assert httpx.get(fake.url + "/v1/models", trust_env=False).json()["data"][0]["id"] == "x"
        fake.run(fake.kill())
        with pytest.raises(httpx.ConnectError):
            httpx.get(fake.url, trust_env=False)


def test_the_command_ends_on_sigterm() -> None:
    command = [sys.executable, "manage.py", "fake_node", "--models", "a,b", "--kind", "vllm"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[0]
            assert len(httpx.get(url + "/v1/models", trust_env=False).json()["data"]) == 2
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=10) == 0
        finally:
            process.kill()


def test_the_command_says_that_its_port_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "manage.py", "fake_node", "--port", port]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert f"Cannot listen on 127.0.0.1:{port}: Address already in use." in done.stderr
    assert "Traceback" not in done.stderr
