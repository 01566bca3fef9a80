"""A token budget is not had again by restarting the server, however it ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from nodes.fake_node import running_fake_node
from tests.blackbox.conftest import add_and_route, chat
from tests.support.product import Product, wait_until


@pytest.mark.parametrize(
    ("end", "patience"),
    [
        pytest.param(Product.stop, 0, id="stopped"),
        pytest.param(Product.kill, 3, id="killed"),  # what it left in its spool is stored first
    ],
)
def test_a_budget_survives_a_restart(tmp_path: Path, end: Callable[[Product], int], patience: float) -> None:
    product = Product(tmp_path)
    with running_fake_node(["model-a"]) as node:
        try:
            add_and_route(product.start(), node)
            values = {"name": "limited", "permissions": ["openai.inference"], "limits": [{"tokens_per_day": 30}]}
            key = product.post("/api/api-keys", json=values).json()["key"]

            def ask() -> httpx.Response:
                return httpx.post(
                    **{**chat(product), "headers": {"Authorization": f"Bearer {key}"}}, trust_env=False, timeout=30
                )

            refused = wait_until(
                lambda: next((answer for answer in [ask()] if answer.status_code == 429), None),
                seconds=10,
                what="the budget is used up",
            )
            time.sleep(1.2)  # what ended more than a second ago is not lost, whatever happens
            end(product)
            again = Product(tmp_path, port=product.port)
            again.key = product.key
            product = again.start()
            first = wait_until(
                lambda: next((answer for answer in [ask()] if answer.status_code == 429), None),
                seconds=patience,
                what="it is used up again",
            )
        finally:
            product.end()
    assert refused.json()["error"]["code"] == "insufficient_quota"
    assert first.json()["error"]["code"] == "insufficient_quota"
