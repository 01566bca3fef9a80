"""Reranking as Jina, Cohere, vLLM and llama.cpp speak it: passed through. https://docs.cohere.com/reference/rerank"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from llmlb_site.lib.upstream.faults import MalformedFault
from routing.core.errors import parameter_invalid
from routing.core.table import NodeEntry
from routing.core.usage import Tokens, texts_in
from routing.protocols.base import OPENAI, Answer, Api, Call, Envelope, Plan, Range, envelope_reader
from routing.protocols.openai import ChunkStream
from routing.protocols.passing import read_usage, renamed, restoring

_NULL: Final = msgspec.Raw(b"null")


class RerankEnvelope(Envelope):
    """What the gateway reads of a request to rerank. Both may be more than text: models that see take images."""

    query: Any = None
    documents: Any = None
    top_n: Any = None


class _Meta(msgspec.Struct):
    tokens: msgspec.Raw = _NULL


class _Ranked(msgspec.Struct):
    results: list[msgspec.Raw]
    usage: msgspec.Raw = _NULL
    meta: msgspec.Raw = _NULL


_ranked: Final = msgspec.json.Decoder(_Ranked)
_meta: Final = msgspec.json.Decoder(_Meta)


def _check(envelope: Envelope) -> None:
    assert isinstance(envelope, RerankEnvelope)
    if not envelope.query or not isinstance(envelope.query, str | dict):
        raise parameter_invalid("query", "'query' must be a non-empty string.")
    documents = envelope.documents
    if isinstance(documents, dict):  # vLLM's form for documents of several parts
        documents = documents.get("content")
    if not documents or not isinstance(documents, list):
        raise parameter_invalid("documents", "'documents' must be a non-empty array.")


def _read_ranked(body: bytes) -> Answer:
    try:
        ranked = _ranked.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MalformedFault("the answer is not a ranking") from None
    return Answer(body, read_usage(ranked.usage) or _tokens_in(ranked.meta), tuple)


def _tokens_in(meta: msgspec.Raw) -> Tokens | None:
    """Cohere's place for them."""
    try:
        return read_usage(_meta.decode(meta).tokens)
    except msgspec.DecodeError:
        return None


def _plan(call: Call, node: NodeEntry) -> Plan:
    return Plan(
        path=call.path,
        body=renamed(call),
        read_answer=restoring(call, _read_ranked),
        open_stream=lambda: ChunkStream(hide_usage=False),
    )


def _prompt_texts(body: bytes) -> Sequence[str]:
    document = msgspec.json.decode(body)
    return [*texts_in(document.get("query")), *texts_in(document.get("documents"))]


RERANK: Final = Api(
    kind="rerank",
    path="/v1/rerank",
    capability="rerank",
    ranges={"top_n": Range(1, float("inf"), integer=True)},
    plan=_plan,
    prompt_texts=_prompt_texts,
    dialect=OPENAI,
    read_envelope=envelope_reader(RerankEnvelope),
    check=_check,
)

APIS: Final = {RERANK.path: RERANK}
