"""Looking at a node because a person asked: test and sync. What is seen counts as a check."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from django.conf import settings
from django.utils.translation import gettext_lazy as _

from access import audit
from access.audit import Actor
from access.refusals import Refusal
from nodes.applying import ListChanges
from nodes.checking import Check, check
from nodes.client import Target
from nodes.detect import Detection, detect
from nodes.models import Node
from nodes.queries import get_node
from nodes.recording import record_check, record_detection
from nodes.refusals import NodeOffline, UnknownNode


@dataclass(frozen=True, slots=True)
class TestReport:
    """How one test of a node went. `error` names no address; `latency_ms` is None where it did not answer."""

    __test__ = False  # no test case, whatever its name begins with

    success: bool
    error: str
    latency_ms: float | None
    models: tuple[str, ...]
    version: str


@dataclass(frozen=True, slots=True)
class SyncReport:
    """The model list after a sync, and how it differs from the one before."""

    models: tuple[str, ...]
    changes: ListChanges


def test_node(*, node_id: int) -> TestReport:
    """Check a node now. What comes of it, good or bad, also changes its status. Raises: UnknownNode."""
    node = get_node(node_id)
    result = asyncio.run(_check(node))
    record_check(node_id, result)
    listing = result.listing
    return TestReport(
        success=result.ok,
        error=result.error,
        latency_ms=round(listing.reply.latency_ms, 1) if listing else None,
        models=tuple(model.id for model in listing.models) if listing else (),
        version=node.version,
    )


def sync_node(*, node_id: int, actor: Actor) -> SyncReport:
    """Read a node's model list now. A sync that fails keeps the list.

    Raises:
        UnknownNode; NodeOffline, with the reason.
    """
    outcome = _sync([get_node(node_id)], actor)[node_id]
    if isinstance(outcome, Refusal):
        raise outcome
    return outcome


def sync_nodes(*, node_ids: Collection[int], actor: Actor) -> dict[int, SyncReport | Refusal]:
    """Read the model lists of several nodes now, all at once: dead ones cost no more than one of them."""
    return _sync(list(Node.objects.filter(pk__in=node_ids)), actor)


def _sync(nodes: Sequence[Node], actor: Actor) -> dict[int, SyncReport | Refusal]:
    seen = asyncio.run(_look_at_all(nodes))
    return {node.pk: _record_sync(node, *found, actor) for node, found in zip(nodes, seen, strict=True)}


def _record_sync(node: Node, result: Check, detection: Detection | None, actor: Actor) -> SyncReport | Refusal:
    recorded = record_check(node.pk, result)
    if detection is not None:
        record_detection(node.pk, detection)
    if result.listing is None:
        return NodeOffline(_("The node was not synced: it %(reason)s.") % {"reason": result.error})
    if recorded is None:
        return UnknownNode()
    audit.record("node.sync", actor=actor, target=node.name)
    return SyncReport(tuple(model.id for model in result.listing.models), recorded.changes)


async def _look_at_all(nodes: Sequence[Node]) -> list[tuple[Check, Detection | None]]:
    return await asyncio.gather(*(_look(node) for node in nodes))


async def _look(node: Node) -> tuple[Check, Detection | None]:
    """The list, and what the node says of itself and its models, which may have changed with it."""
    result = await _check(node)
    if result.listing is None:
        return result, None
    return result, await detect(Target(node.base_url, node.api_key), result.listing.reply)


async def _check(node: Node) -> Check:
    target = Target(node.base_url, node.api_key)
    return await check(target, node_type=node.node_type, timeout=settings.LLMLB.probe_timeout)
