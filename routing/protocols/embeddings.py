"""OpenAI's embeddings, in the encoding that the client asked for, also where the node knows only the other one.

OpenAI's own SDKs ask for base64 unless told otherwise, and decode what comes as if it were: a node that ignores
`encoding_format` would give them wrong numbers. base64 is that of float32, little-endian.

https://platform.openai.com/docs/api-reference/embeddings
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import math
import sys
from array import array
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from llmlb_site.lib.upstream.faults import MalformedFault
from routing.core import document
from routing.core.errors import parameter_invalid
from routing.core.table import NodeEntry
from routing.core.usage import texts_in
from routing.protocols.base import OPENAI, Answer, Api, Call, Envelope, Plan, Range, envelope_reader
from routing.protocols.openai import ChunkStream
from routing.protocols.passing import read_usage, renamed

BASE64: Final = "base64"
FLOAT: Final = "float"
_BYTES: Final = array("f").itemsize
_MEMBERS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LIST: Final = msgspec.json.Decoder(list[msgspec.Raw])
_FLOATS: Final = msgspec.json.Decoder(list[float])
_FLOATS_AND_NULLS: Final = msgspec.json.Decoder(list[float | None])
_TEXT: Final = msgspec.json.Decoder(str)


class _Entry(msgspec.Struct):
    embedding: msgspec.Raw = msgspec.Raw(b"null")


class _Vectors(msgspec.Struct):
    data: list[msgspec.Raw]
    usage: msgspec.Raw = msgspec.Raw(b"null")


_entry: Final = msgspec.json.Decoder(_Entry)
_vectors: Final = msgspec.json.Decoder(_Vectors)

Convert = Callable[[msgspec.Raw], msgspec.Raw]


class EmbeddingsEnvelope(Envelope):
    """What the gateway reads of a request for embeddings."""

    encoding_format: Any = None
    dimensions: Any = None


def read_vectors(body: bytes, wanted: str, model: str | None = None) -> Answer:
    """The answer in the encoding `wanted` (other ones are left alone), of the model that the client named.

    Bytes of which nothing has to be changed stay as they are. Raises: MalformedFault.
    """
    try:
        answer = _vectors.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MalformedFault("the answer is not a list of embeddings") from None
    convert = _conversion(answer.data, wanted)
    if convert is not None or model is not None:
        body = _changed(body, answer.data, convert, model)
    return Answer(body, read_usage(answer.usage), tuple)


def _conversion(data: Sequence[msgspec.Raw], wanted: str) -> Convert | None:
    """How the vectors have to be changed; None where they are what was asked for, or nothing that we know."""
    try:
        first = bytes(_entry.decode(data[0]).embedding)[:1] if data else b""
    except msgspec.DecodeError:
        return None
    if wanted == BASE64 and first == b"[":
        return pack
    if wanted == FLOAT and first == b'"':
        return unpack
    return None


def _changed(body: bytes, data: Sequence[msgspec.Raw], convert: Convert | None, model: str | None) -> bytes:
    members = _MEMBERS.decode(body)
    if model is not None and "model" in members:
        members["model"] = msgspec.Raw(document.as_json(model))
    if convert is not None:
        # What fails are matrices, or integers: nothing that has another encoding.
        with contextlib.suppress(msgspec.DecodeError, ValueError):
            members["data"] = msgspec.Raw(msgspec.json.encode([_entry_changed(entry, convert) for entry in data]))
    return msgspec.json.encode(members)


def _entry_changed(entry: msgspec.Raw, convert: Convert) -> dict[str, msgspec.Raw]:
    members = _MEMBERS.decode(entry)
    if "embedding" in members:
        members["embedding"] = convert(members["embedding"])
    return members


def pack(vector: msgspec.Raw) -> msgspec.Raw:
    """A JSON array of numbers as base64. Null, as which servers write what is no number, becomes NaN.

    Raises: msgspec.DecodeError.
    """
    try:
        numbers = array("f", _FLOATS.decode(vector))
    except msgspec.ValidationError:
        known = _FLOATS_AND_NULLS.decode(vector)
        numbers = array("f", [math.nan if number is None else number for number in known])
    _to_little_endian(numbers)
    return msgspec.Raw(b'"' + base64.b64encode(numbers.tobytes()) + b'"')


def unpack(vector: msgspec.Raw) -> msgspec.Raw:
    """base64 as a JSON array of numbers. What is no number becomes null: JSON has no other word for it.

    Raises: ValueError, where it is not that, or no whole number of float32.
    """
    try:
        packed = base64.b64decode(_TEXT.decode(vector), validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error
    if len(packed) % _BYTES:
        raise ValueError("not a list of float32")
    numbers = array("f", packed)
    _to_little_endian(numbers)
    return msgspec.Raw(msgspec.json.encode(numbers.tolist()))


def _to_little_endian(numbers: array[float]) -> None:
    if sys.byteorder == "big":
        numbers.byteswap()


def _check(envelope: Envelope) -> None:
    assert isinstance(envelope, EmbeddingsEnvelope)
    if not isinstance(envelope.encoding_format, str | None):
        raise parameter_invalid("encoding_format", "'encoding_format' must be a string.")


def _plan(call: Call, node: NodeEntry) -> Plan:
    assert isinstance(call.envelope, EmbeddingsEnvelope)
    wanted = call.envelope.encoding_format or FLOAT
    model = call.asked_model if call.renamed else None
    return Plan(
        path=call.path,
        body=renamed(call),
        read_answer=lambda body: read_vectors(body, wanted, model),
        open_stream=lambda: ChunkStream(hide_usage=False),
    )


def _prompt_texts(body: bytes) -> Sequence[str]:
    return list(texts_in(msgspec.json.decode(body)))


EMBEDDINGS: Final = Api(
    kind="embedding",
    path="/v1/embeddings",
    capability="embedding",
    ranges={"dimensions": Range(1, float("inf"), integer=True)},
    plan=_plan,
    prompt_texts=_prompt_texts,
    dialect=OPENAI,
    read_envelope=envelope_reader(EmbeddingsEnvelope),
    check=_check,
)

APIS: Final = {EMBEDDINGS.path: EMBEDDINGS}
