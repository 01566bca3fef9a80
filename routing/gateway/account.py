"""Steps 7 and 8: what the request took, and its row for the history. Nothing here is awaited."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from history.choices import Outcome
from history.entries import RequestEntry
from routing.core.select import LiveFigures
from routing.core.usage import LOOKED_AT_BYTES, Tokens, estimate, estimate_document
from routing.gateway import kept
from routing.gateway.exchange import Exchange

NO_ROUTE_CODES = frozenset({"no_nodes_available", "no_capable_nodes", "queue_full", "queue_timeout", "model_not_found"})


def outcome_of(exchange: Exchange) -> str:
    """How the request ended, seen from the client."""
    if exchange.outcome:
        return exchange.outcome
    if not exchange.error_code:
        return Outcome.SUCCESS.value
    if exchange.error_code in NO_ROUTE_CODES:
        return Outcome.NO_ROUTE.value
    if exchange.attempts:
        if exchange.status < 400:
            return Outcome.BROKEN.value
        return Outcome.NODE_ERROR.value if _blames_node(exchange) else Outcome.CLIENT_ERROR.value
    return Outcome.NODE_ERROR.value if exchange.status >= 500 else Outcome.CLIENT_ERROR.value


def tokens_of(exchange: Exchange) -> Tokens | None:
    """As the node counted them, else estimated. None where no node computed anything."""
    if exchange.tokens is not None:
        return exchange.tokens
    computed = exchange.first_byte is not None and exchange.status < 400 and exchange.attempts
    if not computed or exchange.api is None:
        return None
    if len(exchange.body) > LOOKED_AT_BYTES:
        prompt = estimate_document(kept.without_blobs(exchange.body))
    else:
        prompt = _estimated(exchange.api.prompt_texts, exchange.body)
    completion = exchange.deltas
    if exchange.completion_texts is not None:
        completion = _estimated(exchange.completion_texts)
    return Tokens(prompt, completion, "estimated") if prompt or completion else None


def _estimated(texts: Callable[..., Sequence[str]], *args: bytes) -> int:
    """0 for what is no text, such as a node's answer in broken UTF-8: a row is never lost for an estimate."""
    try:
        return estimate(texts(*args))
    except (ValueError, TypeError, RecursionError):
        return 0


def entry_of(exchange: Exchange, live: LiveFigures, keep_payloads: bool) -> RequestEntry:
    """The one finaliser of every request, however it ended: its row, and what it taught of the node's speed."""
    ended = time.monotonic()
    tokens = tokens_of(exchange)
    outcome = outcome_of(exchange)
    speed = _speed(exchange, tokens)
    if speed is not None and outcome == Outcome.SUCCESS and not exchange.provider:
        live.observe_speed(exchange.attempts[-1].node_id, exchange.model, speed)
    return _entry(exchange, ended, outcome, tokens, speed, keep_payloads)


def _entry(
    exchange: Exchange, ended: float, outcome: str, tokens: Tokens | None, speed: float | None, keep_payloads: bool
) -> RequestEntry:
    call, principal = exchange.call, exchange.principal
    last = exchange.attempts[-1] if exchange.attempts else None
    began, first_byte = exchange.began, exchange.first_byte
    entry = RequestEntry(
        request_id=exchange.request_id,
        started_at=exchange.started_at,
        kind=exchange.api.kind if exchange.api is not None else "models",
        outcome=outcome,
        status=exchange.status,
        duration_ms=(ended - began) * 1000,
        model=call.asked_model[:300] if call is not None else "",
        served_model=exchange.served_model[:300] if last is not None else "",
        node_id=last.node_id or None if last is not None else None,  # 0: a provider
        node_name=last.node_name if last is not None else exchange.provider,
        api_key_id=principal.key_id if principal is not None else None,
        api_key_name=principal.name if principal is not None else "",
        client_ip=exchange.client_ip,
        error_code=exchange.error_code,
        error_message=exchange.error_message[:300],
        stream=call is not None and call.streaming,
        poison=exchange.poison,
        queue_ms=exchange.queue_seconds * 1000,
        first_byte_ms=(first_byte - began) * 1000 if first_byte is not None else None,
        tokens_per_second=speed,
        bytes_in=exchange.bytes_in,
        bytes_out=exchange.bytes_out,
        attempts=exchange.attempts,
    )
    if tokens is not None:
        entry.prompt_tokens, entry.completion_tokens = tokens.prompt, tokens.completion
        entry.total_tokens, entry.token_source = tokens.total, tokens.source
    if keep_payloads:
        entry.request_body, entry.request_truncated = kept.of_request(exchange)
        entry.response_body, entry.response_truncated = kept.of_answer(exchange)
    return entry


def _speed(exchange: Exchange, tokens: Tokens | None) -> float | None:
    """Completion tokens per second of the attempt that answered."""
    if tokens is None or not tokens.completion or not exchange.attempts:
        return None
    seconds = max(exchange.attempts[-1].duration_ms / 1000, 0.001)
    return tokens.completion / seconds


def _blames_node(exchange: Exchange) -> bool:
    return exchange.status >= 500 or any(attempt.error for attempt in exchange.attempts)
