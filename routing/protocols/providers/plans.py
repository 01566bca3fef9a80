"""How a cloud provider is asked, whatever API the client speaks: natively where it can be, else through chat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from msgspec import structs

from llmlb_site.lib.sse import EventSplitter
from routing.core.table import NodeEntry
from routing.core.usage import Tokens
from routing.protocols.base import Answer, Api, Call, Plan, StreamReader, read_envelope
from routing.protocols.providers import anthropic, google, google_embeddings
from routing.protocols.providers.errors import not_supported

CHAT: Final = "/v1/chat/completions"
Planner = Callable[[Call, NodeEntry], Plan]

# The paths that a provider serves itself, in the form of the client's own API.
_NATIVE: Final[dict[str, frozenset[str]]] = {
    "openai": frozenset({"/v1/responses"}),
    "google": frozenset(),
    "anthropic": frozenset({"/v1/messages", "/v1/messages/count_tokens"}),
}
_TRANSLATED: Final[dict[tuple[str, str], Planner]] = {
    ("google", CHAT): google.plan_chat,
    ("google", "/v1/embeddings"): google_embeddings.plan_embeddings,
    ("anthropic", CHAT): anthropic.plan_chat,
}


def plan_for(api: Api, call: Call, provider: NodeEntry) -> Plan:
    """Raises: Refusal: 501 for an API that the provider has no counterpart of, 400 for what it cannot be told."""
    translate = _TRANSLATED.get((provider.name, api.path))
    if translate is not None:
        return translate(call, provider)
    as_node = replace(provider, node_type="openai_compatible", speaks=_NATIVE[provider.name])
    plan = structs.replace(api.plan(call, as_node), otherwise=None)
    if provider.name == "openai" or plan.ready is not None:
        return plan
    if plan.path in as_node.speaks:
        return structs.replace(plan, headers=_with_version(plan))
    if plan.path != CHAT or not isinstance(plan.body, bytes):
        raise not_supported(provider.name, api.path)
    return _through_chat(plan, plan.body, call, _TRANSLATED[provider.name, CHAT], provider)


def _with_version(plan: Plan) -> tuple[tuple[bytes, bytes], ...]:
    """Without a version Anthropic refuses every request."""
    name = anthropic.VERSION[0]
    return plan.headers if any(given == name for given, _ in plan.headers) else (*plan.headers, anthropic.VERSION)


def _through_chat(outer: Plan, body: bytes, call: Call, plan_chat: Planner, provider: NodeEntry) -> Plan:
    """The client's API is translated to chat, and chat to the provider's; answers come back the same way."""
    in_chat = Call(CHAT, body, read_envelope(body), asked_model=call.asked_model, model=call.model)
    inner = plan_chat(in_chat, provider)
    return structs.replace(
        inner,
        read_answer=lambda answer: _through(inner.read_answer(answer), outer),
        open_stream=lambda: ChainedStream(inner.open_stream(), outer.open_stream()),
        notes=outer.notes,
    )


def _through(known: Answer, outer: Plan) -> Answer:
    told = outer.read_answer(known.body)
    return structs.replace(told, tokens=known.tokens or told.tokens, completion_texts=known.completion_texts)


class ChainedStream:
    """Two translations, one after the other: what the first tells, the second takes."""

    def __init__(self, first: StreamReader, second: StreamReader) -> None:
        self._first = first
        self._second = second

    @property
    def whole(self) -> bool:
        return self._first.whole

    @property
    def tokens(self) -> Tokens | None:
        return self._first.tokens

    @property
    def failed(self) -> bool:
        return self._first.failed or self._second.failed

    @property
    def deltas(self) -> int:
        return self._first.deltas

    def take(self, event: bytes) -> bytes:
        return self._pass_on(self._first.take(event))

    def end(self) -> bytes:
        return self._pass_on(self._first.end()) + self._second.end()

    def _pass_on(self, events: bytes) -> bytes:
        return b"".join([self._second.take(event) for event in EventSplitter().feed(events)]) if events else b""
