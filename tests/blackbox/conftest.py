"""The real product against fake nodes, each in a process or thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from nodes.fake_node import Behaviour, FakeNode, running_fake_node
from tests.support.product import Product, wait_until

MakeProduct = Callable[..., Product]
MakeNode = Callable[..., FakeNode]


@pytest.fixture
def product(tmp_path: Path) -> Iterator[MakeProduct]:
    """`product(command=…, environment=…)`: a product that is not started yet, and certainly gone after the test."""
    made: list[Product] = []

    def make(**options: Any) -> Product:
        data_dir = options.pop("data_dir", tmp_path / f"data-{len(made)}")
        made.append(Product(data_dir, **options))
        return made[-1]

    yield make
    for each in made:
        each.end()


@pytest.fixture
def node() -> Iterator[MakeNode]:
    """`node(models=…, chunks=…)`: a fake inference server that is up."""
    with ExitStack() as stack:

        def make(models: tuple[str, ...] = ("model-a",), **behaviour: Any) -> FakeNode:
            return stack.enter_context(running_fake_node(models, behaviour=Behaviour(**behaviour)))

        yield make


def add_and_route(product: Product, *nodes: FakeNode) -> None:
    """Register the nodes, and return when every model of theirs is offered."""
    for number, node in enumerate(nodes, start=1):
        product.add_node(f"node-{number}", node.url)
    wanted = {model for node in nodes for model in node.models}
    wait_until(lambda: wanted <= models(product), seconds=10, what="their models are offered")


def models(product: Product) -> set[str]:
    return {model["id"] for model in product.get("/v1/models").json()["data"]}


def chat(product: Product, *, model: str = "model-a", stream: bool = False) -> dict[str, Any]:
    """The arguments of a chat request."""
    return {
        "url": f"{product.url}/v1/chat/completions",
        "headers": product.headers,
        "json": {"model": model, "stream": stream, "messages": [{"role": "user", "content": "Hello"}]},
    }
