"""Steps 6 to 10: which node, or why none."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from models_catalog.capabilities import phrase
from routing.core import prefix
from routing.core.errors import (
    Refusal,
    capability_mismatch,
    model_unknown,
    no_capable_node,
    no_nodes,
    queue_full,
    queue_timeout,
)
from routing.core.table import NodeEntry, RoutingTable, Way
from routing.gateway.exchange import Exchange
from routing.protocols.base import Api, Call
from routing.state.base import Lease, Place, State

# Told to a client that met a full queue; longer where the queue itself says that it will be longer (SPEC-da253baa).
RETRY_AFTER_SECONDS = 5


def why_not(table: RoutingTable, model: str, *wanted: str) -> Refusal | None:
    """Why no node can serve this now, in the contract's order; None if one can, now or later.

    `wanted`: what the model must be able to do, all of it on one and the same node.
    """
    if not table.any_online:
        return no_nodes()
    if model not in table.known:
        return model_unknown(model)
    if model not in table.holders:
        return no_capable_node(model)
    unable: frozenset[int] = frozenset()
    for capability in wanted:
        unable |= table.unable(model, capability)
        if unable and all(node.id in unable for node in table.holders[model]):
            return capability_mismatch(model, phrase(capability))
    return None


def require(table: RoutingTable, model: str, *wanted: str) -> None:
    """Raises: Refusal, as of `why_not`."""
    refusal = why_not(table, model, *wanted)
    try:
        if refusal is not None:
            raise refusal
    finally:
        del refusal  # it knows this frame now, which must not know it


def unable_nodes(table: RoutingTable, model: str, *wanted: str) -> frozenset[int]:
    """The nodes on which it is known that the model cannot do all of this."""
    return frozenset[int]().union(*(table.unable(model, capability) for capability in wanted))


def find_way(table: RoutingTable, api: Api, name: str) -> Way | None:
    """Where a request of this API for this name goes, by the table alone; None where that is nowhere now.

    Kept with the table: most requests are for a few names.
    """
    key = (api.path, name)
    way = table.ways.get(key)
    if way is None:
        model = table.resolve(name)
        if prefix.split(model) is not None or why_not(table, model, api.capability) is not None:
            return None
        way = table.ways[key] = Way(model, unable_nodes(table, model, api.capability))
    return way


def is_fit(api: Api, call: Call, node: NodeEntry) -> bool:
    """Whether a node that has the model can serve this very call."""
    at_home = call.home is None or call.home == node.id
    return at_home and node.id not in call.unfit and (api.why_unfit is None or api.why_unfit(call, node) is None)


def unfit_among(api: Api, call: Call, holders: Sequence[NodeEntry]) -> frozenset[int]:
    """The holders that cannot serve this call. Raises: Refusal, where that is all of them."""
    if api.why_unfit is None and call.home is None:
        return call.unfit
    unfit = frozenset(node.id for node in holders if not is_fit(api, call, node))
    if unfit and len(unfit) == len(holders):
        raise _first_reason(api, call, holders) or no_capable_node(call.model)
    return unfit


def _first_reason(api: Api, call: Call, holders: Sequence[NodeEntry]) -> Refusal | None:
    if api.why_unfit is None:
        return None
    refusals = [api.why_unfit(call, node) for node in holders if call.home in (None, node.id)]
    return next(filter(None, refusals), None)


async def select_available_node_with_queue(
    model_id: str,
    *,
    state: State,
    exchange: Exchange,
    key: int,
    tried: Collection[int],
    deadline: float,
    affinity: int = 0,
) -> Lease:
    """A slot on a node that can execute `model_id`: now, or after waiting in the fair queue.

    Raises: Refusal (429 if the queue is full, 504 at the deadline, 503 if the last holder goes while waiting).

    `deadline`: until when it waits, as `time.monotonic()`.
    """
    lease = await state.take(model_id, key, tried, affinity)
    if lease is not None:
        return lease
    place = await state.queue(model_id, key, tried, affinity)
    if place is None:
        waiting = state.stats().waiting
        retry_after = max(RETRY_AFTER_SECONDS, round(state.estimated_wait(1)))
        raise queue_full(waiting, retry_after, _place_headers(state, waiting + 1))
    return await _wait(place, state, exchange, max(0.0, deadline - time.monotonic()))


async def _wait(place: Place, state: State, exchange: Exchange, timeout: float) -> Lease:
    began = time.monotonic()
    try:
        exchange.queue_headers = _place_headers(state, place.position)
        return await place.wait(timeout)
    except TimeoutError:
        raise queue_timeout(time.monotonic() - began, {}) from None
    except BaseException:
        place.give_up()
        raise
    finally:
        exchange.queue_seconds += time.monotonic() - began


def _place_headers(state: State, position: int) -> dict[str, str]:
    return {"X-Queue-Position": str(position), "X-Estimated-Wait": str(round(state.estimated_wait(position)))}
