"""What the Responses API is to the gateway: where it stands, its ranges, and how each node is asked for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from routing.core.errors import Refusal, parameter_invalid
from routing.core.table import NodeEntry
from routing.core.usage import texts_in
from routing.protocols.base import OPENAI, Api, Call, Envelope, Plan, Range, envelope_reader
from routing.protocols.passing import renamed, restoring
from routing.protocols.responses import request
from routing.protocols.responses.answer import read_completion
from routing.protocols.responses.native import NativeStream, read_object, read_response
from routing.protocols.responses.stream import TranslatedStream
from routing.protocols.vision import inspect_responses

PATH: Final = "/v1/responses"
CHAT: Final = "/v1/chat/completions"
# Told to the client of a translated response.
TRANSLATED: Final = ((b"x-llmlb-translated", b"chat_completions"),)


class ResponsesEnvelope(Envelope):
    """What the gateway reads of a Responses request."""

    max_output_tokens: Any = None
    previous_response_id: Any = None


def _check(envelope: Envelope) -> None:
    assert isinstance(envelope, ResponsesEnvelope)
    if not isinstance(envelope.previous_response_id, str | None):
        raise parameter_invalid("previous_response_id", "'previous_response_id' must be a string.")


def _refers_to(call: Call) -> str | None:
    """The earlier response that this one goes on from."""
    assert isinstance(call.envelope, ResponsesEnvelope)
    earlier: str | None = call.envelope.previous_response_id
    return earlier


def _why_unfit(call: Call, node: NodeEntry) -> Refusal | None:
    """A node that serves the API itself can do anything; another, what can be said in chat's words."""
    if PATH in node.speaks:
        return None
    try:
        _translation(call)
    except Refusal as refusal:
        return refusal
    return None


def _plan(call: Call, node: NodeEntry) -> Plan:
    """Raises: Refusal, where the request cannot be translated for a node that needs it."""
    return _native(call, node) if PATH in node.speaks else _translated(call)


def _native(call: Call, node: NodeEntry) -> Plan:
    def made(response_id: str) -> None:
        call.made(response_id, node.id)

    return Plan(
        path=PATH,
        body=renamed(call),
        read_answer=restoring(call, lambda body: read_response(body, made)),
        open_stream=lambda: NativeStream(made=made, rename=call.asked_model if call.renamed else None),
        otherwise=lambda: _translated(call),
    )


def _translated(call: Call) -> Plan:
    asked, body = _translation(call)
    return Plan(
        path=CHAT,
        body=body,
        read_answer=lambda answer: read_completion(answer, asked, call.asked_model),
        open_stream=lambda: TranslatedStream(asked, call.asked_model),
        notes=TRANSLATED,
    )


def _translation(call: Call) -> tuple[request.Document, bytes]:
    """The request, and the body of the chat request that stands for it. Worked out once a call. Raises: Refusal."""
    known: tuple[request.Document, bytes] | None = call.memo.get(PATH)
    if known is None:
        asked = request.read(call.body)
        known = call.memo[PATH] = asked, msgspec.json.encode(request.to_chat(asked, call.model))
    return known


def _prompt_texts(body: bytes) -> Sequence[str]:
    document = msgspec.json.decode(body)
    return [*texts_in(document), *texts_in(document.get("instructions"))]


RESPONSES: Final = Api(
    kind="responses",
    path=PATH,
    capability="text",
    ranges={
        "temperature": Range(0, 2),
        "top_p": Range(0, 1),
        "presence_penalty": Range(-2, 2),
        "frequency_penalty": Range(-2, 2),
        "top_logprobs": Range(0, 20, integer=True),
        "max_output_tokens": Range(1, float("inf"), integer=True),
    },
    plan=_plan,
    prompt_texts=_prompt_texts,
    dialect=OPENAI,
    read_envelope=envelope_reader(ResponsesEnvelope),
    check=_check,
    why_unfit=_why_unfit,
    refers_to=_refers_to,
    inspect=inspect_responses,
)


# --- responses that a node keeps -------------------------------------------------------------------------------------


def plan_stored(call: Call) -> Plan:
    """How the answer about a stored response becomes the client's."""

    def ignored(response_id: str) -> None:
        """It is known already."""

    return Plan(
        path=call.path,
        body=call.body,
        read_answer=restoring(call, read_object),
        open_stream=lambda: NativeStream(made=ignored, rename=call.asked_model if call.renamed else None),
    )


# For history and errors alone: nothing is computed.
STORED: Final = Api(
    kind="responses",
    path=PATH,
    capability="text",
    ranges={},
    plan=lambda call, node: plan_stored(call),
    prompt_texts=lambda body: (),
    dialect=OPENAI,
)
