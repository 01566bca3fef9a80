"""Steps 7 and 8: what the request took, and its row for the history. Nothing here is awaited."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from history.choices import Outcome
from history.entries import RequestEntry
from routing.core.select import LiveFigures
from routing.core.usage import LOOKED_AT_BYTES, Tokens, estimate, estimate_document
from routing.gateway import kept
from routing.gateway.exchange import Exchange

TEXT_LENGTH: Final = 300  # of what clients and nodes may say at any length
SUCCESS: Final = Outcome.SUCCESS.value
NO_ROUTE_CODES = frozenset({"no_nodes_available", "no_capable_nodes", "queue_full", "queue_timeout", "model_not_found"})


def outcome_of(exchange: Exchange) -> str:
    """How the request ended, seen from the client."""
    if exchange.outcome:
        return exchange.outcome
    if not exchange.error_code:
        return SUCCESS
    if exchange.error_code in NO_ROUTE_CODES:
        return Outcome.NO_ROUTE.value
    if exchange.attempts:
        if exchange.status < 400:
            return Outcome.BROKEN.value
        return Outcome.NODE_ERROR.value if _blames_node(exchange) else Outcome.CLIENT_ERROR.value
    return Outcome.NODE_ERROR.value if exchange.status >= 500 else Outcome.CLIENT_ERROR.value


def estimated_tokens(exchange: Exchange) -> Tokens | None:
    """What it took where the node did not count. None where no node computed anything."""
    computed = exchange.first_byte is not None and exchange.status < 400 and exchange.attempts
    if not computed or exchange.api is None:
        return None
    prompt_texts = exchange.api.prompt_texts
    if len(exchange.body) > LOOKED_AT_BYTES:
        prompt = _estimated(lambda: estimate_document(kept.without_blobs(exchange.body)))
    else:
        prompt = _estimated(lambda: estimate(prompt_texts(exchange.body)))
    completion = exchange.deltas
    if (completion_texts := exchange.completion_texts) is not None:
        completion = _estimated(lambda: estimate(completion_texts()))
    return Tokens(prompt, completion, "estimated") if prompt or completion else None


def _estimated(count: Callable[[], int]) -> int:
    """0 for what is no text, such as a node's answer in broken UTF-8: a row is never lost for an estimate."""
    try:
        return count()
    except (ValueError, TypeError, RecursionError):
        return 0


def entry_of(exchange: Exchange, keep_payloads: bool) -> RequestEntry:
    """The one finaliser of every request, however it ended: its row.

    Only what differs from a field's default is set: one is made for every request.
    """
    api, call, principal = exchange.api, exchange.call, exchange.principal
    assert api is not None
    began, first_byte = exchange.began, exchange.first_byte
    entry = RequestEntry(
        request_id=exchange.request_id,
        started_at=exchange.started_at,
        kind=api.kind,
        outcome=outcome_of(exchange),
        status=exchange.status,
        duration_ms=(time.monotonic() - began) * 1000,
        node_name=exchange.provider,
        client_ip=exchange.client_ip,
        stream=exchange.streaming,
        bytes_in=len(exchange.body) if exchange.upload is None else exchange.upload.length,
        bytes_out=exchange.bytes_out,
        attempts=exchange.attempts,
    )
    if principal is not None:
        entry.api_key_id, entry.api_key_name = principal.key_id, principal.name
    if call is not None:
        entry.model = call.asked_model[:TEXT_LENGTH]
        if exchange.attempts:
            model, provider, last = call.model, exchange.provider, exchange.attempts[-1]
            entry.served_model = (f"{provider}:{model}" if provider else model)[:TEXT_LENGTH]
            if not provider:
                entry.node_id, entry.node_name = last.node_id, last.node_name
    tokens = exchange.tokens if exchange.tokens is not None else estimated_tokens(exchange)
    if tokens is not None:
        _add_tokens(entry, tokens)
    if first_byte is not None:
        entry.first_byte_ms = (first_byte - began) * 1000
    if exchange.queue_seconds:
        entry.queue_ms = exchange.queue_seconds * 1000
    if exchange.error_code:
        entry.error_code, entry.error_message = exchange.error_code, exchange.error_message[:TEXT_LENGTH]
        entry.poison = exchange.poison
    if keep_payloads:
        entry.request_body, entry.request_truncated = kept.of_request(exchange)
        entry.response_body, entry.response_truncated = kept.of_answer(exchange)
    return entry


def learn_speed(live: LiveFigures, entry: RequestEntry) -> None:
    """What the request has taught of the node's speed."""
    if entry.node_id is not None and entry.tokens_per_second is not None and entry.outcome == SUCCESS:
        live.observe_speed(entry.node_id, entry.served_model, entry.tokens_per_second)


def _add_tokens(entry: RequestEntry, tokens: Tokens) -> None:
    """What was counted, and how fast the attempt that answered was."""
    prompt, completion = tokens.prompt, tokens.completion
    entry.prompt_tokens, entry.completion_tokens, entry.total_tokens = prompt, completion, prompt + completion
    entry.token_source = tokens.source
    if completion and entry.attempts:
        entry.tokens_per_second = completion * 1000 / max(entry.attempts[-1].duration_ms, 1.0)


def _blames_node(exchange: Exchange) -> bool:
    return exchange.status >= 500 or any(attempt.error for attempt in exchange.attempts)
