"""Fake nodes on real sockets, and the background work of a test ended with it."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.utils import timezone

from nodes import polling
from nodes.background import background, stop_background
from nodes.fake_node import FakeNode, running_fake_node
from nodes.models import Node, NodeModel, NodeStatus

StartFake = Callable[..., FakeNode]


@pytest.fixture
def start_fake() -> Iterator[StartFake]:
    """`start_fake(models, **FakeNode's arguments)`: a fake node that runs until the test ends."""
    with contextlib.ExitStack() as stack:
        yield lambda *args, **kwargs: stack.enter_context(running_fake_node(*args, **kwargs))
    # With the fakes gone whatever waits for them ends; it must not outlive the test's database.
    background().wait_idle(10)
    stop_background()


@pytest.fixture
def configure(settings: Any) -> Callable[..., None]:
    """`configure(offline_after=3)`: other values of LLMLB_* for this test."""

    def change(**values: Any) -> None:
        settings.LLMLB = dataclasses.replace(settings.LLMLB, **values)

    return change


def make_node(fake: FakeNode | str, name: str = "gpu-1", *, models: tuple[str, ...] = (), **fields: Any) -> Node:
    """A row as if `fake` had been registered: online, with `models`."""
    base_url = fake if isinstance(fake, str) else fake.url
    values = {"status": NodeStatus.ONLINE, "node_type_detected_at": timezone.now(), **fields}
    node = Node.objects.create(name=name, base_url=base_url, **values)
    listed = models or (() if isinstance(fake, str) else tuple(fake.models))
    NodeModel.objects.bulk_create(NodeModel(node=node, model_id=model) for model in listed)
    return node


def poll(*nodes: Node, timeout: float = 15) -> None:
    """Check these nodes (all, without any) now, and wait for the results."""
    chosen = Node.objects.filter(pk__in=[node.pk for node in nodes]) if nodes else Node.objects.all()
    chosen.update(next_poll_at=timezone.now())
    assert polling.poll_due() >= len(nodes)
    assert background().wait_idle(timeout)


def run_ticks(until: Callable[[], bool], *, within: float, every: float = 1.0, tick: Any = polling.poll_due) -> float:
    """Tick as beat does until something holds. Returns the seconds that it took."""
    started = time.monotonic()
    while not until():
        assert time.monotonic() - started < within, f"not within {within} s"
        tick()
        time.sleep(every)
    return time.monotonic() - started


def models_of(node: Node) -> set[str]:
    return set(NodeModel.objects.filter(node=node).values_list("model_id", flat=True))


def excluded_of(node: Node) -> set[str]:
    excluded = NodeModel.objects.filter(node=node, excluded_at__isnull=False)
    return set(excluded.values_list("model_id", flat=True))


def reloaded(node: Node) -> Node:
    return Node.objects.get(pk=node.pk)
