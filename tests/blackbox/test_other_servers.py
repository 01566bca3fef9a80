"""The servers beside the usual one: `serve --server daphne`, and `manage.py runserver`."""

from __future__ import annotations

import httpx
import pytest

from tests.blackbox.conftest import MakeNode, MakeProduct, add_and_route, chat
from tests.support.product import Product, free_port, wait_until

BOUNDARIES = {"LLMLB_MAX_BODY_BYTES": "100000", "LLMLB_MAX_MULTIPART_BYTES": "200000"}


def assert_serves(product: Product, fake: MakeNode) -> None:
    """The way of a request in short: a whole answer, a stream, refusals, pages."""
    first, second = fake(("model-a",)), fake(("model-b",))
    add_and_route(product, first, second)
    with httpx.Client(trust_env=False, timeout=20) as client:
        whole = client.post(**chat(product, model="model-b"))
        assert whole.status_code == 200
        assert whole.json()["model"] == "model-b"
        with client.stream("POST", **chat(product, stream=True)) as stream:
            assert "[DONE]" in "".join(stream.iter_text())
        assert client.post(**chat(product, model="model-c")).json()["error"]["code"] == "model_not_found"
        assert client.post(**{**chat(product), "headers": {}}).status_code == 401
        large = {"model": "model-a", "messages": [{"role": "user", "content": "x" * 150_000}]}
        assert client.post(**{**chat(product), "json": large}).status_code == 413
        assert client.get(f"{product.url}/login", follow_redirects=True).status_code == 200
    assert len(first.inferences) == 1
    assert len(second.inferences) == 1


@pytest.mark.parametrize("server", ["uvicorn", "daphne"])
def test_serve(product: MakeProduct, node: MakeNode, server: str) -> None:
    with product(command=("serve", "--server", server), environment=BOUNDARIES) as running:
        assert_serves(running, node)
        assert running.stop() == 0
        assert "Traceback" not in running.output


def test_runserver(product: MakeProduct, node: MakeNode) -> None:
    prepared = product()
    prepared.start()
    assert prepared.stop() == 0
    port = free_port()
    command = ("runserver", "--noreload", f"127.0.0.1:{port}")
    running = product(data_dir=prepared.data_dir, port=port, command=command, environment=BOUNDARIES)
    running.start()
    running.key = prepared.key
    assert_serves(running, node)


def test_a_dead_node_leaves_under_runserver_too(product: MakeProduct, node: MakeNode) -> None:
    """The embedded worker runs there as well: nobody else would poll."""
    prepared = product()
    prepared.start()
    assert prepared.stop() == 0
    port = free_port()
    running = product(data_dir=prepared.data_dir, port=port, command=("runserver", "--noreload", f"127.0.0.1:{port}"))
    running.start()
    running.key = prepared.key
    fake = node()
    add_and_route(running, fake)
    fake.behaviour.mode = "hang"
    wait_until(lambda: running.get("/v1/models").json()["data"] == [], seconds=15, what="the node is offline")
