"""Downloads over several processes: any gateway shows them, and a worker that goes is replaced by another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from nodes.fake_node import Behaviour, FakeNode, running_fake_node
from tests.blackbox.conftest import models
from tests.scaled.conftest import MakeProduct, background
from tests.support.product import Product, wait_until


@pytest.fixture
def own() -> Iterator[FakeNode]:
    with running_fake_node(["org/chat"], kind="xllm", behaviour=Behaviour(download_seconds=20.0)) as node:
        yield node


def newest(product: Product, node: int) -> dict[str, Any]:
    found: dict[str, Any] = product.get(f"/api/nodes/{node}/download/progress").json()["tasks"][0]
    return found


@pytest.mark.timeout(300)  # six processes start
def test_a_download_outlives_its_worker_and_is_seen_everywhere(gateway: MakeProduct, own: FakeNode) -> None:
    first, second = gateway().start(), gateway().start()
    node = first.add_node("own", own.url)["id"]
    with background(first):
        assert first.post(f"/api/nodes/{node}/download", json={"model": "org/new"}).status_code == 202
        wait_until(lambda: newest(second, node)["downloaded_bytes"] > 0, seconds=60, what="the other gateway sees it")
    with background(second):
        wait_until(lambda: newest(first, node)["status"] == "success", seconds=90, what="another worker follows it")
        wait_until(lambda: "org/new" in models(second), seconds=30, what="the model is routed")
    assert len(own.downloads.tasks) == 1  # followed, not ordered anew
