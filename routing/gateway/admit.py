"""Step 3: is there room in what the key may use? And when the request is over: what it has really taken."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from models_catalog.capabilities import EMBEDDING, RERANK, TEXT
from routing.core import prefix
from routing.core.errors import Refusal, budget_used_up, over_limit
from routing.core.limits import Denial, KeyLimits, Limit, duration
from routing.core.table import RoutingTable
from routing.engine import Engine
from routing.gateway.exchange import Exchange, HeaderList
from routing.protocols.base import Api, Call, Dialect
from routing.state.limits import Verdict

# A byte-pair token is about four bytes of JSON, in English as in Japanese (three bytes a character, 1.3 a token).
BYTES_PER_TOKEN: Final = 4
IMAGE_TOKENS: Final = 1000
# What an answer takes that nobody has bounded, as a rule; and what it may take. Models end by themselves long before; a
# larger number would keep the requests of a small budget from running beside each other.
UNBOUNDED_ANSWER: Final = 1000
LONGEST_ANSWER: Final = 32_768
# What a conversation may have that the node keeps: the context window of most models.
LONGEST_CONTEXT: Final = 131_072
_ANSWERS: Final = range(1, 10_000_001)  # tokens that somebody may mean
_PROMPT_ALONE: Final = frozenset({EMBEDDING, RERANK})  # nothing is said in answer
_EMBEDDED: Final = b";base64,"
_BEGINNING: Final = 4096


async def admit(exchange: Exchange, engine: Engine, limits: KeyLimits) -> None:
    """Reserve what the request may take. Raises: Refusal (429)."""
    api, call = exchange.api, exchange.call
    assert api is not None
    assert call is not None
    applying = limits.overall
    if limits.models:
        applying = engine.table.applying.get((limits, call.asked_model)) or find_applying(
            limits, call.asked_model, engine.table
        )
    if not applying:
        return
    verdict = await engine.limits.reserve(applying, *expected_tokens(api, call))
    exchange.hold = verdict.hold
    exchange.limit_headers = headers_of(verdict, exchange.dialect)
    if verdict.denial is not None:
        engine.metrics.observe_limit(api.kind, verdict.denial.kind)
        raise refusal_of(verdict.denial)


def find_applying(limits: KeyLimits, name: str, table: RoutingTable) -> tuple[Limit, ...]:
    """The limits that a request for `name` counts on. Kept with the table, but not for names that have none."""
    applying = limits.applying(prefix.canonical(table.resolve(name)), table.resolve)
    if applying is not limits.overall:
        table.applying[limits, name] = applying
    return applying


def settle(exchange: Exchange, engine: Engine, tokens: int) -> None:
    """Correct what was reserved. A request that came to nothing, and not by the client's fault, counts as none."""
    hold, exchange.hold = exchange.hold, None
    if hold is not None:
        counts = exchange.status < 500 and (not exchange.error_code or bool(exchange.attempts))
        engine.limits.settle(hold, tokens, counts=counts)


def expected_tokens(api: Api, call: Call) -> tuple[int, int]:
    """What the request is expected to take, and what it may take at most: its prompt, and what it lets the model say.

    A token is a byte at least. What the body does not tell, such as a conversation that the node keeps, is bounded by
    what a model can look at.
    """
    if not api.infers:
        return 0, 0
    prompt = prompt_tokens(call.body)
    longest_prompt = prompt * BYTES_PER_TOKEN
    if api.capability != TEXT:
        return prompt, longest_prompt + (0 if api.capability in _PROMPT_ALONE else LONGEST_ANSWER)
    envelope: Any = call.envelope
    named, older = envelope.max_completion_tokens, envelope.max_tokens
    answer = longest = named or older or getattr(envelope, "max_output_tokens", None)
    # Not checked yet: what cannot be is refused later, and counts as if it were not there.
    if type(answer) is not int or answer not in _ANSWERS:
        answer, longest = UNBOUNDED_ANSWER, LONGEST_ANSWER
    elif named and type(older) is int and older in _ANSWERS:  # which of the two holds is for the node to say
        longest = max(answer, older)
    if api.refers_to is not None and api.refers_to(call):
        longest_prompt += LONGEST_CONTEXT
    answers = envelope.answers
    return prompt + answers * answer, longest_prompt + answers * longest


def prompt_tokens(body: bytes) -> int:
    """An estimate without reading the document. Embedded images and files count by the piece, not by their bytes."""
    length = len(body)
    if length <= _BEGINNING and _EMBEDDED not in body:
        return length // BYTES_PER_TOKEN
    start = body.find(_EMBEDDED, 0, _BEGINNING)
    if start < 0:
        rest = _BEGINNING - len(_EMBEDDED)
        if body.rfind(_EMBEDDED, rest) < 0:  # backwards is several times as fast in CPython
            return length // BYTES_PER_TOKEN
        start = body.find(_EMBEDDED, rest)
    images = 0
    while start >= 0:
        end = body.find(b'"', start)
        end = len(body) if end < 0 else end
        length -= end - start
        images += 1
        start = body.find(_EMBEDDED, end)
    return length // BYTES_PER_TOKEN + images * IMAGE_TOKENS


def refusal_of(denial: Denial) -> Refusal:
    """The words in which clients are told."""
    limit = denial.limit
    whose = f"this API key with the model '{limit.model}'" if limit.model else "this API key"
    again = f"Please try again in {duration(denial.retry_after)}."
    numbers = f"Limit {denial.allowed}, Used {denial.used}, Requested {denial.wanted}."
    match denial.kind:
        case "day" | "month":
            message = f"The token budget of {whose} for this {denial.kind} is used up. {numbers} {again}"
            return budget_used_up(message, denial.retry_after)
        case "reserved":
            message = f"What is left of the token budget of {whose} is reserved by running requests. {numbers} {again}"
            return over_limit("tokens", message, denial.retry_after)
        case "concurrent":
            message = f"Rate limit reached for {whose} on concurrent requests. {numbers} {again}"
            return over_limit("requests", message, denial.retry_after)
        case _:
            message = f"Rate limit reached for {whose} on {denial.kind} per min. {numbers} {again}"
            return over_limit(denial.kind, message, denial.retry_after)


def headers_of(verdict: Verdict, dialect: Dialect) -> HeaderList:
    """`x-ratelimit-*` as OpenAI sends them, and what the API has of its own."""
    headers: HeaderList = []
    allowed, left, reset = verdict.requests
    if allowed:
        headers += (
            (b"x-ratelimit-limit-requests", b"%d" % allowed),
            (b"x-ratelimit-remaining-requests", b"%d" % left if left > 0 else b"0"),
            (b"x-ratelimit-reset-requests", _duration(reset)),
        )
        if dialect.tell_limit is not None:
            headers += dialect.tell_limit("requests", allowed, max(0, left), reset)
    allowed, left, reset = verdict.tokens
    if allowed:
        headers += (
            (b"x-ratelimit-limit-tokens", b"%d" % allowed),
            (b"x-ratelimit-remaining-tokens", b"%d" % left if left > 0 else b"0"),
            (b"x-ratelimit-reset-tokens", _duration(reset)),
        )
        if dialect.tell_limit is not None:
            headers += dialect.tell_limit("tokens", allowed, max(0, left), reset)
    return headers


@lru_cache(maxsize=256)
def _duration(milliseconds: int) -> bytes:
    return duration(milliseconds).encode("ascii")
