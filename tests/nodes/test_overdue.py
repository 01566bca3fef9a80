"""Where nobody checks the nodes, /readyz and the dashboard say so."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from llmlb_site.lib import health
from nodes.models import Node
from nodes.overdue import LOOK_SECONDS, PART, PATIENCE_SECONDS, Overdue
from tests.nodes.conftest import make_node

pytestmark = pytest.mark.django_db


class Clock:
    """Seconds that pass when they are told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def overdue(clock: Clock) -> Overdue:
    return Overdue(clock)


@pytest.fixture
def node() -> Node:
    return make_node("http://127.0.0.1:9")


def due(node: Node, seconds: float) -> None:
    Node.objects.filter(pk=node.pk).update(next_poll_at=timezone.now() + timedelta(seconds=seconds))


def is_failing(overdue: Overdue, clock: Clock, after: float = LOOK_SECONDS) -> bool:
    clock.now += after
    overdue.look()
    return PART in {part.name for part in health.failing()}


def test_a_check_that_nobody_begins_is_told_after_a_while_and_until_one_is(
    overdue: Overdue, clock: Clock, node: Node
) -> None:
    due(node, -60)
    assert not is_failing(overdue, clock)
    assert not is_failing(overdue, clock, PATIENCE_SECONDS - 1)
    assert is_failing(overdue, clock)
    due(node, 3)
    assert not is_failing(overdue, clock)


def test_a_clock_that_jumps_ahead_is_no_alarm(overdue: Overdue, clock: Clock, node: Node) -> None:
    due(node, -3600)
    assert not is_failing(overdue, clock)
    due(node, 3)
    assert not is_failing(overdue, clock)
    due(node, -3600)
    assert not is_failing(overdue, clock)


def test_a_node_that_is_switched_off_waits_for_no_check(overdue: Overdue, clock: Clock, node: Node) -> None:
    due(node, -60)
    Node.objects.filter(pk=node.pk).update(enabled=False)
    overdue.look()
    assert not is_failing(overdue, clock, PATIENCE_SECONDS * 2)


def test_without_nodes_there_is_nothing_to_check(overdue: Overdue, clock: Clock) -> None:
    overdue.look()
    assert not is_failing(overdue, clock, PATIENCE_SECONDS * 2)


def test_what_is_no_longer_looked_at_is_no_longer_told(overdue: Overdue, clock: Clock, node: Node) -> None:
    due(node, -60)
    overdue.look()
    assert is_failing(overdue, clock, PATIENCE_SECONDS)
    overdue.forget()
    assert PART not in {part.name for part in health.parts()}
