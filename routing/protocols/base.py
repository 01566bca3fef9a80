"""What an inference API says, as data and small pure functions: the one request path serves all of them.

An `Api` tells where the model stands, which values are out of range, and how errors look. Its `plan` says how a node is
asked: usually with the client's own bytes, and the answer is the client's too; a plan may also translate both ways.
Routing, queue, failover, exclusion and history know nothing more than this.

What is made for each request is a msgspec `Struct`: a frozen dataclass takes ten times as long to make.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from operator import attrgetter
from typing import Any, Final, Protocol, runtime_checkable

import msgspec

from llmlb_site.lib.upstream.base import BodySource
from routing.core.errors import Refusal, body_invalid, model_missing, parameter_invalid
from routing.core.form import Form
from routing.core.table import NodeEntry
from routing.core.usage import Tokens

ANSWERS: Final = range(1, 9)  # that one request may ask for


class Envelope(msgspec.Struct):
    """The few members of a request that concern the gateway. Everything else passes by unread.

    All of them are `Any`: the checks are ours, so that each failure names its parameter, and in the contract's order.
    """

    model: Any = None
    stream: Any = None
    stream_options: Any = None
    temperature: Any = None
    top_p: Any = None
    n: Any = None
    presence_penalty: Any = None
    frequency_penalty: Any = None
    top_logprobs: Any = None
    max_tokens: Any = None
    max_completion_tokens: Any = None

    @property
    def answers(self) -> int:
        """How many it asks for. What cannot be is refused later, and counts as one."""
        n = self.n
        return n if type(n) is int and n in ANSWERS else 1


def envelope_reader(envelope: type[Envelope]) -> Callable[[bytes], Envelope]:
    """Reads the envelope of a JSON body. Raises: Refusal (400), where it is not a JSON object or names no model."""
    return partial(_read, msgspec.json.Decoder(envelope))


def _read(decoder: msgspec.json.Decoder[Any], body: bytes) -> Envelope:
    try:
        envelope: Envelope = decoder.decode(body)
        if not body.isascii():
            body.decode()  # the decoder passes over members that it does not keep, without a look at their bytes
    except RecursionError:
        raise body_invalid("The request body is nested too deeply.") from None
    except msgspec.ValidationError as error:
        if body.lstrip().startswith(b"{"):
            raise body_invalid(f"The request body has a value that cannot be read: {error}.") from None
        raise body_invalid("The request body must be a JSON object.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise body_invalid(f"The request body is not valid JSON: {error}.") from None
    if not isinstance(envelope.model, str) or not envelope.model.strip():
        raise model_missing()
    return envelope


read_envelope: Final = envelope_reader(Envelope)


class Call(msgspec.Struct, eq=False):
    """One request as its API sees it. `asked_model` is the client's word, `model` the one behind an alias of it.

    An upload has a `form` in place of a body. `wants` is what the model must be able to do beyond what the API says
    (to see), `unfit` are the nodes on which it is known that it cannot. `home` is the node that alone can serve the
    call, because it keeps what the call goes on from. `made` is to be told the id of what a node keeps of the answer,
    and which node that is. `memo` is for what an API works out once a call.
    """

    path: str
    body: bytes
    envelope: Envelope
    asked_model: str
    model: str
    form: Form | None = None
    wants: Sequence[str] = ()
    unfit: frozenset[int] = frozenset()
    home: int | None = None
    made: Callable[[str, int], None] = lambda id, node_id: None
    memo: dict[str, Any] = {}  # a new one each: Struct copies it

    @property
    def streaming(self) -> bool:
        return self.envelope.stream is True

    @property
    def renamed(self) -> bool:
        """The client used an alias: the node is asked for the model, the client is answered with the alias."""
        return self.model != self.asked_model

    @property
    def wants_usage_chunk(self) -> bool:
        options = self.envelope.stream_options
        return isinstance(options, dict) and options.get("include_usage") is True


@dataclass(frozen=True, slots=True)
class Range:
    """The values that an API certainly allows for one parameter. Null and absent are always allowed."""

    low: float
    high: float
    integer: bool = False

    def check(self, name: str, value: Any) -> None:
        """Raises: Refusal (400) that names the parameter, the value and the range."""
        is_number = isinstance(value, int) or (isinstance(value, float) and not self.integer)
        if isinstance(value, bool) or not is_number:
            raise parameter_invalid(name, f"'{name}' must be {'an integer' if self.integer else 'a number'}.")
        if not self.low <= value <= self.high:
            raise parameter_invalid(name, f"'{name}' is {value}, but must be {self.describe()}.")

    def describe(self) -> str:
        if self.high == float("inf"):
            return f"at least {self.low:g}"
        return f"between {self.low:g} and {self.high:g}"


class Answer(msgspec.Struct, frozen=True, eq=False):
    """A whole, non-streamed answer: what the client gets of it, and what is worth knowing."""

    body: bytes
    tokens: Tokens | None
    completion_texts: Callable[[], Sequence[str]]


class StreamReader(Protocol):
    """Follows one event stream. `take` is called with each whole event of the node, in order."""

    @property
    def whole(self) -> bool:
        """The API's own final mark has come. The end of the bytes is not it, nor is `[DONE]` where there is another."""

    @property
    def tokens(self) -> Tokens | None:
        """The usage that the node reported."""

    @property
    def failed(self) -> bool:
        """The node has told an error in the stream itself."""

    @property
    def deltas(self) -> int:
        """How many events carried a piece of the answer: about one token each, where no usage came."""

    def take(self, event: bytes) -> bytes:
        """What goes to the client now because of this event: usually the event itself."""

    def end(self) -> bytes:
        """What was held back until the stream proved whole."""


@runtime_checkable
class TakesLines(Protocol):
    """A `StreamReader` that has a short way for the usual event, which is most of what is ever relayed."""

    def take_line(self, event: bytes) -> bytes:
        """As `take`, of an event that is one line and an empty one, both ended by LF."""


@runtime_checkable
class TellsEnd(Protocol):
    """A `StreamReader` that knows when the last event has come, however long the node then keeps the connection."""

    @property
    def over(self) -> bool:
        """Whole, and nothing can follow."""


@runtime_checkable
class TellsBreak(Protocol):
    """A `StreamReader` whose API tells in its own events, and with what came so far, that no more will come."""

    def broken(self, refusal: Refusal) -> bytes:
        """The last event of a stream that breaks off."""


class Plan(msgspec.Struct, frozen=True, eq=False):
    """How one node is asked on behalf of a call, and how its answer becomes the client's.

    `opaque`: what succeeds, and is no event stream that was asked for, is passed on as it comes, whatever it is
    (audio); only its end tells that it was whole.
    `otherwise`: how the same node is asked where it turns out not to serve `path`: usually a translation.
    `ready`: the answer is known already, and the node is not asked.
    `notes`: headers that tell the client how it was served.
    """

    path: str
    body: bytes | BodySource
    read_answer: Callable[[bytes], Answer]
    open_stream: Callable[[], StreamReader]
    opaque: bool = False
    headers: tuple[tuple[bytes, bytes], ...] = ()
    otherwise: Callable[[], Plan] | None = None
    ready: Answer | None = None
    notes: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Dialect:
    """How an API's clients are told that something went wrong: as an answer, and in the middle of a stream.

    `restate` puts a node's own error (its status, and its body, which is a JSON object) into that shape too.
    `request_id` is a further name for the header `X-Request-ID`. `tell_limit` gives further headers beside
    `x-ratelimit-*`: of "requests" or "tokens", how many are allowed and left, and in how many milliseconds all are.
    """

    answer: Callable[[Refusal], tuple[int, bytes]]
    event: Callable[[Refusal], bytes]
    restate: Callable[[int, bytes], bytes] = lambda status, body: body
    request_id: bytes = b""
    tell_limit: Callable[[str, int, int, int], tuple[tuple[bytes, bytes], ...]] | None = None


@dataclass(frozen=True)
class Api:
    """One inference API. `kind` names it in history, `capability` is what a model must be able to do."""

    kind: str
    path: str
    capability: str
    ranges: Mapping[str, Range]
    plan: Callable[[Call, NodeEntry], Plan]
    prompt_texts: Callable[[bytes], Sequence[str]]
    dialect: Dialect
    read_envelope: Callable[[bytes], Envelope] = field(default=read_envelope)
    # The model computes for it. Where it does not, failing tells nothing of the model, and excludes it nowhere.
    infers: bool = True
    # What follows is None where an API has no such thing, so that a request does not pay for it.
    # Raises: Refusal (400), where a header that the API wants is missing.
    check_headers: Callable[[Mapping[bytes, bytes]], None] | None = None
    # Raises: Refusal (400), where the request is certainly none of this API.
    check: Callable[[Envelope], None] | None = None
    # An API that takes an upload, not JSON: the envelope of its form. Raises: Refusal (400).
    read_form: Callable[[Form], Envelope] | None = None
    # What else the model must be able to do for this very content. Raises: Refusal (400), for content that cannot be.
    inspect: Callable[[Call], Sequence[str]] | None = None
    # Why a node cannot serve this call, though it has the model; None if it can.
    why_unfit: Callable[[Call, NodeEntry], Refusal | None] | None = None
    # The id of what a node must have kept for this call to go on from, if it needs any.
    refers_to: Callable[[Call], str | None] | None = None
    # An answer for which none of the model's nodes has to be asked, or waited for.
    answer_here: Callable[[Call, Sequence[NodeEntry]], Plan | None] | None = None

    @cached_property
    def _given(self) -> Callable[[Envelope], tuple[Any, ...]]:
        """The parameters that have a range, in the ranges' order."""
        names = tuple(self.ranges)
        return attrgetter(*names) if len(names) > 1 else lambda envelope: tuple(getattr(envelope, n) for n in names)

    @cached_property
    def is_particular(self) -> bool:
        """Not every node that has the model can serve every call, or not every call needs one."""
        return any((self.why_unfit, self.refers_to, self.answer_here))

    @cached_property
    def _nothing_given(self) -> tuple[None, ...]:
        return (None,) * len(self.ranges)

    @property
    def listed_as(self) -> str:
        """Its name in a model's `supported_apis`."""
        return self.path.removeprefix("/v1/").replace("/", "_")

    def check_parameters(self, envelope: Envelope) -> None:
        """Raises: Refusal (400), for a value that is certainly out of the API's range."""
        if self.check is not None:
            self.check(envelope)
        given = self._given(envelope)
        if given != self._nothing_given:
            for (name, allowed), value in zip(self.ranges.items(), given, strict=True):
                if value is not None:
                    allowed.check(name, value)
        if envelope.stream is not None and not isinstance(envelope.stream, bool):
            raise parameter_invalid("stream", "'stream' must be true or false.")
        if envelope.stream_options is not None and not isinstance(envelope.stream_options, dict):
            raise parameter_invalid("stream_options", "'stream_options' must be an object.")


def _openai_body(refusal: Refusal) -> bytes:
    error = {"message": refusal.message, "type": refusal.type, "param": refusal.param, "code": refusal.code}
    return msgspec.json.encode({"error": {**error, **refusal.extra}})


# As OpenAI's SDKs parse it; also for every path that belongs to no API.
OPENAI: Final = Dialect(
    answer=lambda refusal: (refusal.status, _openai_body(refusal)),
    event=lambda refusal: b"data: " + _openai_body(refusal) + b"\n\n",
)
