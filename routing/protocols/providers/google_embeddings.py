"""Embeddings over Google's Gemini API: https://ai.google.dev/api/embeddings"""

from __future__ import annotations

import base64
import struct
from typing import Final

import msgspec

from llmlb_site.lib.upstream.faults import MalformedFault
from routing.core.table import NodeEntry
from routing.core.usage import estimate
from routing.protocols.base import Answer, Call, Plan
from routing.protocols.openai import ChunkStream
from routing.protocols.providers.chat import UNREADABLE, document_of
from routing.protocols.providers.google import JSON, model_path, resource, texts_to_embed


class Vector(msgspec.Struct):
    values: list[float]


class Vectors(msgspec.Struct):
    embeddings: list[Vector]


_vectors: Final = msgspec.json.Decoder(Vectors)


def plan_embeddings(call: Call, provider: NodeEntry) -> Plan:
    """Raises: Refusal (400), for an input that Google cannot take."""
    given = document_of(call)
    texts = texts_to_embed(given.get("input"))
    size = {"outputDimensionality": given["dimensions"]} if "dimensions" in given else {}
    requests = [{"model": resource(call.model), "content": {"parts": [{"text": text}]}, **size} for text in texts]
    packed = given.get("encoding_format") == "base64"
    return Plan(
        path=model_path(call.model, "batchEmbedContents"),
        body=msgspec.json.encode({"requests": requests}),
        read_answer=lambda body: _read_answer(body, call.asked_model, texts, packed=packed),
        open_stream=lambda: ChunkStream(hide_usage=False),
        headers=(JSON,),
    )


def _read_answer(body: bytes, model: str, texts: list[str], *, packed: bool) -> Answer:
    """Google counts no tokens of embeddings: the usage is an estimate, and history says so."""
    try:
        vectors = _vectors.decode(body).embeddings
    except UNREADABLE:
        raise MalformedFault("the answer is not a list of embeddings") from None
    if len(vectors) != len(texts):
        raise MalformedFault("the answer has not one embedding for each text")
    data = [
        {"object": "embedding", "index": index, "embedding": _packed(vector.values) if packed else vector.values}
        for index, vector in enumerate(vectors)
    ]
    count = estimate(texts)
    usage = {"prompt_tokens": count, "total_tokens": count}
    document = {"object": "list", "data": data, "model": model, "usage": usage}
    return Answer(msgspec.json.encode(document), None, tuple)


def _packed(values: list[float]) -> str:
    """As OpenAI packs them: little-endian 32-bit floats in base64."""
    try:
        return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
    except (struct.error, OverflowError):
        raise MalformedFault("an embedding has numbers out of range") from None
