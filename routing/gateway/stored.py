"""Responses that a node keeps: going on from one, and reading, deleting or cancelling it, always at that node."""

from __future__ import annotations

import re
from typing import Final

from access.permissions import Permission
from history.entries import AttemptEntry
from llmlb_site.lib.upstream.base import UpstreamAnswer
from llmlb_site.lib.upstream.faults import MalformedFault, NodeFault
from routing.core import prefix
from routing.core.errors import (
    Refusal,
    method_not_allowed,
    no_capable_node,
    previous_response_unknown,
    response_unknown,
)
from routing.core.table import NodeEntry, Principal
from routing.engine import Engine
from routing.gateway import auth, intake, provider, relay, replies
from routing.gateway.answered import Answered, refusal_for, without_address
from routing.gateway.attempt import node_headers
from routing.gateway.exchange import Exchange
from routing.gateway.hangup import HangUp
from routing.protocols.base import Api, Call, Envelope, Plan
from routing.protocols.responses import STORED, plan_stored
from routing.state.stored import Stored

# `compact` and `input_tokens` are operations of OpenAI's that no node has, not ids: unknown paths.
_PATH: Final = re.compile(r"/v1/responses/(?P<id>(?!(?:compact|input_tokens)$)[^/]+)(?P<act>/cancel|/input_items)?")
_METHODS: Final = {None: ("GET", "DELETE"), "/cancel": ("POST",), "/input_items": ("GET",)}
# What is sent along with a request for something stored is next to nothing.
MAX_BODY_BYTES: Final = 64 * 1024


def is_about_stored(path: str) -> bool:
    return _PATH.fullmatch(path) is not None


async def bind(api: Api, call: Call, principal: Principal, engine: Engine, provider_name: str = "") -> None:
    """Bind a call that goes on from a response to the node that keeps it, and remember what comes of the call.

    A call to a provider is bound to none, but goes on only from what its owner has made at that provider.

    Raises: Refusal (404), where the response is not kept; 503, where its node cannot be used now.
    """

    owner_id, model, asked_model = principal.owner_id, call.model, call.asked_model  # the call itself refers to it

    def made(response_id: str, node_id: int) -> None:
        engine.stored.remember(
            owner_id, response_id, node_id=node_id, model=model, asked_model=asked_model, provider=provider_name
        )

    call.made = made
    earlier = api.refers_to(call) if api.refers_to is not None else None
    if earlier is None:
        return
    stored = await engine.stored.find(principal.owner_id, earlier)
    if stored is None or stored.provider != provider_name or not _may_use(principal, stored):
        raise previous_response_unknown(earlier)
    if provider_name:
        return
    holders = engine.table.holders.get(call.model, ())
    if all(node.id != stored.node_id for node in holders):
        raise _node_away(engine, stored, call.model) or previous_response_unknown(earlier)
    call.home = stored.node_id


def _may_use(principal: Principal, stored: Stored) -> bool:
    return principal.may_use(prefix.canonical(stored.asked_model))


def _node_away(engine: Engine, stored: Stored, model: str) -> Refusal | None:
    """The node is there and has the model, but cannot be used now: that is worth another try later."""
    node = engine.table.nodes.get(stored.node_id)
    return no_capable_node(model) if node is not None and model == stored.model else None


async def follow(exchange: Exchange, engine: Engine) -> None:
    """Serve a request about a response: at the node that made it, for the owner of the key that asked for it.

    Raises: Refusal.
    """
    match = _PATH.fullmatch(exchange.path)
    assert match is not None
    methods = _METHODS[match["act"]]
    if exchange.method not in methods:
        raise method_not_allowed(exchange.method, exchange.path, ", ".join(methods))
    exchange.api = STORED
    exchange.dialect = STORED.dialect
    principal = exchange.principal = await auth.identify(exchange.headers, engine, Permission.INFERENCE)
    response_id = match["id"]
    stored = await engine.stored.find(principal.owner_id, response_id)
    if stored is None or not _may_use(principal, stored):
        raise response_unknown(response_id)
    body = await intake.read_body(exchange, MAX_BODY_BYTES)
    keeper = _keeper(engine, stored, response_id)
    envelope = Envelope(stream="stream=true" in exchange.query.lower())
    exchange.streaming = envelope.stream
    path = exchange.path + exchange.query
    call = exchange.call = Call(path, body, envelope, asked_model=stored.asked_model, model=stored.model)
    with HangUp(exchange) as hang_up:
        if stored.provider:
            exchange.provider = stored.provider
            target = engine.provider_target(keeper)
            await provider.carry_out(exchange, plan_stored(call), keeper, target, engine.upstream)
        else:
            await _ask_node(exchange, engine, keeper, plan_stored(call), response_id)
    exchange.tokens, exchange.deltas = None, 0  # they were counted when the response was made
    if hang_up.seen and not exchange.finished:
        raise intake.ClientGone
    if exchange.method == "DELETE" and exchange.status == 200:
        engine.stored.forget(principal.owner_id, response_id)


def _keeper(engine: Engine, stored: Stored, response_id: str) -> NodeEntry:
    """The node, or the provider. Raises: Refusal (404 where it is gone, 503 where it is away)."""
    table = engine.table
    node = table.providers.get(stored.provider) if stored.provider else table.nodes.get(stored.node_id)
    if node is None:
        raise response_unknown(response_id)
    if not (node.online and node.enabled):
        raise no_capable_node(stored.model)
    return node


async def _ask_node(exchange: Exchange, engine: Engine, node: NodeEntry, plan: Plan, response_id: str) -> None:
    """No slot is taken: nothing is computed."""
    entry = AttemptEntry(node_id=node.id, node_name=node.name, selection_reason="keeps_the_response")
    exchange.attempts.append(entry)
    try:
        answer = await engine.upstream.send(
            engine.target(node),
            exchange.method,
            plan.path,
            node_headers(exchange),
            plan.body,
            silence=node.timeout,
        )
        try:
            entry.status = answer.status
            if 200 <= answer.status < 300:
                await relay.relay(exchange, plan, answer)
            else:
                await _pass_error_on(exchange, engine, node, answer, response_id)
        finally:
            answer.close()
    except NodeFault as fault:
        entry.error = f"{fault.code}: {fault}"
        if exchange.first_byte is None:
            raise refusal_for(fault, 1) from None
        await relay.end_broken_stream(exchange, refusal_for(fault, 1))


async def _pass_error_on(
    exchange: Exchange, engine: Engine, node: NodeEntry, answer: UpstreamAnswer, response_id: str
) -> None:
    """A node that makes responses and keeps none has no such path."""
    if answer.status < 400:
        raise MalformedFault("the node answered with a redirect")
    answered = Answered(answer.status, answer.headers, await relay.whole_body(answer))
    if answered.says_no_such_path():
        raise response_unknown(response_id)
    if not answered.is_json:
        message = f"The node answered {answer.status} with a body that is not JSON."
        raise Refusal(answer.status, "node_error", message, type="api_error")
    exchange.error_code, exchange.error_message = "node_error", f"the node answered {answer.status}"
    await replies.json(exchange, without_address(answered.body, engine.target(node)), answer.status)
