"""Steps 6 to 10: which node, or why none."""

from __future__ import annotations

import time
from collections.abc import Collection

from models_catalog.capabilities import phrase, supports
from routing.core.errors import (
    Refusal,
    capability_mismatch,
    model_unknown,
    no_capable_node,
    no_nodes,
    queue_full,
    queue_timeout,
)
from routing.core.table import RoutingTable
from routing.gateway.exchange import Exchange
from routing.state.base import Lease, Place, State

# Told to a client that met a full queue; longer where the queue itself says that it will be longer (SPEC-da253baa).
RETRY_AFTER_SECONDS = 5


def why_not(table: RoutingTable, model: str, capability: str) -> Refusal | None:
    """Why no node can serve this now, in the contract's order; None if one can, now or later."""
    if not table.any_online:
        return no_nodes()
    if model not in table.known:
        return model_unknown(model)
    if model not in table.holders:
        return no_capable_node(model)
    if not supports(table.capabilities.get(model, frozenset()), capability):
        return capability_mismatch(model, phrase(capability))
    return None


async def select_available_node_with_queue(
    model_id: str, *, state: State, exchange: Exchange, tried: Collection[int], timeout: float
) -> Lease:
    """A slot on a node that can execute `model_id`: now, or after waiting in the fair queue.

    Raises: Refusal (429 if the queue is full, 504 after `timeout` seconds, 503 if the last holder goes while waiting).
    """
    key = exchange.principal.key_id if exchange.principal is not None else 0
    lease = state.take(model_id, key, tried)
    if lease is not None:
        return lease
    place = state.queue(model_id, key, tried)
    if place is None:
        waiting = state.stats().waiting
        retry_after = max(RETRY_AFTER_SECONDS, round(state.estimated_wait(1)))
        raise queue_full(waiting, retry_after, _place_headers(state, waiting + 1))
    return await _wait(place, state, exchange, timeout)


async def _wait(place: Place, state: State, exchange: Exchange, timeout: float) -> Lease:
    headers = _place_headers(state, place.position)
    exchange.queue_headers = headers
    began = time.monotonic()
    try:
        return await place.wait(timeout)
    except TimeoutError:
        raise queue_timeout(time.monotonic() - began, {}) from None
    finally:
        exchange.queue_seconds += time.monotonic() - began


def _place_headers(state: State, position: int) -> dict[str, str]:
    return {"X-Queue-Position": str(position), "X-Estimated-Wait": str(round(state.estimated_wait(position)))}
