"""Step 4: a model with a provider's prefix is asked of that provider, once. No queue, no exclusion, no other try.

Only who writes the prefix gets there: a request for a model of the nodes never falls back to a provider.
"""

from __future__ import annotations

import logging
import time
from typing import Final

from history.entries import AttemptEntry
from llmlb_site.lib.upstream.base import Headers, Target, Upstream, UpstreamAnswer
from llmlb_site.lib.upstream.faults import MalformedFault, NodeFault
from routing.core.table import NodeEntry
from routing.gateway import relay, replies
from routing.gateway.exchange import Exchange
from routing.protocols.base import Plan
from routing.protocols.providers.errors import network_failure, refused
from routing.protocols.providers.plans import plan_for

log = logging.getLogger("llmlb.gateway")

SELECTION: Final = "prefix"
# What a provider may know of the client's request besides its body.
_TO_PROVIDER: Final = (b"content-type", b"accept", b"user-agent")
_OWN: Final = {
    "openai": (b"openai-beta",),
    "google": (),
    "anthropic": (b"anthropic-version", b"anthropic-beta"),
}
# What the client may know of the provider's answer: the rest tells of our account there.
_TO_CLIENT: Final = frozenset({b"content-type", b"retry-after", b"content-disposition"})


async def ask(exchange: Exchange, provider: NodeEntry, target: Target, upstream: Upstream) -> None:
    """Answer the client from a provider, or with what the provider, or the way to it, failed of.

    Raises: Refusal, for what the provider cannot be asked at all.
    """
    assert exchange.api is not None
    assert exchange.call is not None
    exchange.provider = provider.name
    plan = plan_for(exchange.api, exchange.call, provider)
    exchange.without_address = lambda said: _without(said, (provider.api_key, target.netloc))
    exchange.notes = (*plan.notes, (b"x-llmlb-provider", provider.name.encode()))
    if plan.ready is not None:
        await relay.answer_ready(exchange, plan.ready)
        return
    await carry_out(exchange, plan, provider, target, upstream)


async def carry_out(exchange: Exchange, plan: Plan, provider: NodeEntry, target: Target, upstream: Upstream) -> None:
    """Send what is planned, and answer the client."""
    entry = AttemptEntry(node_id=0, node_name=provider.name, selection_reason=SELECTION)
    exchange.attempts.append(entry)
    began = time.monotonic()
    try:
        await _send_and_relay(exchange, plan, provider, target, upstream)
    except NodeFault as fault:
        entry.error = f"{fault.code}: {fault}"
        refusal = network_failure(provider.name, fault)
        if exchange.first_byte is None:
            await replies.refuse(exchange, refusal)
        else:
            await relay.end_broken_stream(exchange, refusal)
    finally:
        entry.duration_ms = (time.monotonic() - began) * 1000


async def _send_and_relay(
    exchange: Exchange, plan: Plan, provider: NodeEntry, target: Target, upstream: Upstream
) -> None:
    headers = _headers(exchange, plan)
    answer = await upstream.send(target, exchange.method, plan.path, headers, plan.body, silence=provider.timeout)
    try:
        exchange.attempts[-1].status = answer.status
        if 200 <= answer.status < 300:
            answer.headers = [(name, value) for name, value in answer.headers if name in _TO_CLIENT]
            await relay.relay(exchange, plan, answer)
        elif answer.status >= 400:
            await _pass_error_on(exchange, provider, target, answer)
        else:
            raise MalformedFault("the provider answered with a redirect")
    finally:
        answer.close()


async def _pass_error_on(exchange: Exchange, provider: NodeEntry, target: Target, answer: UpstreamAnswer) -> None:
    """The provider's status and words, in the shape that the client's SDK parses."""
    retry_after = next((value for name, value in answer.headers if name == b"retry-after"), b"").decode("latin-1")
    body = await relay.whole_body(answer)
    secrets = (provider.api_key, target.netloc)
    refusal = refused(provider.name, answer.status, body, retry_after, secrets)
    said = f"{provider.name} answered {answer.status}"
    if answer.status in (401, 403, 429) or answer.status >= 500:
        exchange.attempts[-1].error = f"status {answer.status}"
    if answer.status in (401, 403):
        log.warning("%s: does it still accept the key that is configured here?", said)
    await replies.refuse(exchange, refusal)
    exchange.error_code, exchange.error_message = "provider_error", said


def _headers(exchange: Exchange, plan: Plan) -> Headers:
    """What the plan says counts more than what the client said."""
    given = exchange.headers
    names = (*_TO_PROVIDER, *_OWN[exchange.provider])
    headers = {name: given[name] for name in names if name in given}
    headers.update(plan.headers)
    return list(headers.items())


def _without(said: bytes, secrets: tuple[str, ...]) -> bytes:
    for secret in secrets:
        said = said.replace(secret.encode(), b"...")
    return said
