"""The real product against fake nodes, each in a process or thread of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from nodes.fake_node import Behaviour, FakeNode, running_fake_node
from tests.support.product import Product, wait_until

MakeProduct = Callable[..., Product]
MakeNode = Callable[..., FakeNode]


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with a database that is migrated and empty: starts from it are quicker."""
    data_dir = tmp_path_factory.mktemp("migrated") / "data"
    done = Product(data_dir).manage("migrate", "--verbosity", "0")
    assert done.returncode == 0, done.stderr
    return data_dir


@pytest.fixture
def product(tmp_path: Path, migrated: Path) -> Iterator[MakeProduct]:
    """`product(command=…, environment=…)`: a product that is not started yet, and certainly gone after the test.

    `new=True`: with a data directory that does not exist yet.
    """
    made: list[Product] = []

    def make(*, new: bool = False, data_dir: Path | None = None, **options: Any) -> Product:
        if data_dir is None:
            data_dir = tmp_path / f"data-{len(made)}"
            if not new:
                shutil.copytree(migrated, data_dir)
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
