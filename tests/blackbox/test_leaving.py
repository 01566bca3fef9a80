"""How the product leaves, and what survives when it does not get to."""

from __future__ import annotations

import json
import signal
import threading
import time
from typing import Any

import httpx
import pytest

from tests.blackbox.conftest import MakeNode, MakeProduct, add_and_route, chat
from tests.support.product import Product, wait_until

CHUNKS = 30


class StreamedChat(threading.Thread):
    """A client that streams a chat and keeps what it was sent."""

    def __init__(self, product: Product) -> None:
        super().__init__(daemon=True)
        self._request: dict[str, Any] = chat(product, stream=True)
        self.text = ""
        self.error: httpx.HTTPError | None = None
        self.start()
        wait_until(lambda: "data:" in self.text, seconds=10, what="the stream has begun")

    def run(self) -> None:
        try:
            with httpx.stream("POST", **self._request, timeout=60, trust_env=False) as response:
                for part in response.iter_text():
                    self.text += part
        except httpx.HTTPError as error:
            self.error = error

    @property
    def chunks(self) -> int:
        return self.text.count('"content"')


def history_of(product: Product) -> list[dict[str, Any]]:
    answer = product.get("/api/dashboard/request-responses", params={"per_page": 100})
    assert answer.status_code == 200, answer.text
    records: list[dict[str, Any]] = answer.json()["records"]
    return records


@pytest.mark.parametrize("server", ["uvicorn", "daphne"])
def test_sigterm_lets_a_running_stream_finish(product: MakeProduct, node: MakeNode, server: str) -> None:
    running = product(command=("serve", "--server", server))
    running.start()
    add_and_route(running, node(chunks=CHUNKS, chunk_interval=0.1))
    stream = StreamedChat(running)
    running.process.send_signal(signal.SIGTERM)
    wait_until(lambda: running.get("/readyz").status_code == 503, seconds=1, what="/readyz says 503")
    assert running.wait() == 0, running.output
    stream.join(5)
    assert stream.error is None
    assert stream.chunks >= CHUNKS
    assert "[DONE]" in stream.text
    assert "Traceback" not in running.output

    again = product(data_dir=running.data_dir)
    again.start()
    again.key = running.key
    records = history_of(again)
    assert len(records) == 1, "the recorder was flushed"


def test_a_killed_server_loses_no_request_that_ended_a_second_before(product: MakeProduct, node: MakeNode) -> None:
    running = product()
    running.start()
    add_and_route(running, node())
    identifiers = set()
    with httpx.Client(trust_env=False) as client:
        for _ in range(50):
            answer = client.post(**chat(running))
            assert answer.status_code == 200, answer.text
            identifiers.add(answer.headers["x-request-id"])
    time.sleep(1.0)
    running.kill()
    again = product(data_dir=running.data_dir)
    again.start()
    again.key = running.key
    wait_until(
        lambda: identifiers <= {record["request_id"] for record in history_of(again)},
        seconds=5,
        what="all 50 requests are in the history",
    )


def test_the_log_of_a_life_names_no_secret(product: MakeProduct, node: MakeNode) -> None:
    running = product(environment={"LLMLB_LOG_FORMAT": "json", "LLMLB_LOG_LEVEL": "debug"})
    running.start()
    fake = node()
    add_and_route(running, fake)
    assert httpx.post(**chat(running), trust_env=False).status_code == 200
    wrong = {"Authorization": "Bearer sk_wrong-key-that-nobody-has-00000000000000000000"}
    assert running.get("/v1/models", headers=wrong).status_code == 401
    assert running.stop() == 0
    assert running.key not in running.output
    assert wrong["Authorization"].removeprefix("Bearer ") not in running.output
    assert (running.data_dir / "secret_key").read_text() not in running.output
    logged = [line for line in running.lines if line.startswith("{")]
    assert logged
    assert all(json.loads(line)["message"] for line in logged)
