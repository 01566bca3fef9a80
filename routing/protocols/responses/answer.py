"""A whole chat completion as the response that the client asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from llmlb_site.lib.upstream.faults import MalformedFault
from routing.core.usage import texts_in
from routing.protocols.base import Answer
from routing.protocols.responses import shape
from routing.protocols.responses.shape import Document, Head

# Where servers put what a model thought: llama.cpp, DeepSeek and vLLM; newer vLLM, Ollama and OpenRouter.
REASONING: Final = ("reasoning_content", "reasoning")


def read_completion(body: bytes, request: Mapping[str, Any], model: str) -> Answer:
    """The answer to `request`, which named the model `model`. Raises: MalformedFault, where it is no completion."""
    completion, choice = _understand(body)
    message = choice["message"]
    status, reason = shape.status_of(choice.get("finish_reason"))
    output = _output(message, choice.get("logprobs"), status)
    told = completion.get("usage")
    usage = shape.usage_of(told)
    response = Head.of(request, model).in_state(status, output, usage=usage, reason=reason)
    return Answer(
        msgspec.json.encode(response),
        shape.tokens_of(told),
        lambda: list(texts_in(message)),
    )


def reasoning_in(message: Mapping[str, Any]) -> str:
    """What the model thought, in a message or a piece of one."""
    return next((text for name in REASONING if isinstance(text := message.get(name), str) and text), "")


def arguments_of(function: Mapping[str, Any]) -> str:
    """A call's arguments as the JSON text that they are by contract; some servers send the object itself."""
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        return arguments
    return "" if arguments is None else msgspec.json.encode(arguments).decode()


def objects_in(value: Any) -> list[Document]:
    """The objects of a list; none where it is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def logprobs_in(logprobs: Any) -> Sequence[Any]:
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    return content if isinstance(content, list) else ()


def _understand(body: bytes) -> tuple[Document, Document]:
    """The completion and its first choice."""
    try:
        completion = msgspec.json.decode(body)
        choice = completion["choices"][0]
        if isinstance(choice["message"], dict):
            return completion, choice
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, IndexError, TypeError):
        pass
    raise MalformedFault("the answer is not a completion")


def _output(message: Document, logprobs: Any, status: str) -> list[Document]:
    """The items of a response: what was thought, what was said, what is to be called."""
    thought = reasoning_in(message)
    calls = objects_in(message.get("tool_calls"))
    said = _said(message, logprobs)
    items: list[Document] = []
    if thought:
        items.append(shape.reasoning_item(shape.new_id("rs"), status, [shape.reasoning_part(thought)]))
    if said or not calls:
        items.append(shape.message_item(shape.new_id("msg"), status, said or [shape.text_part("")]))
    return items + [_call(call, status) for call in calls]


def _said(message: Document, logprobs: Any) -> list[Document]:
    parts = []
    text = "".join(texts_in(message.get("content")))
    if text:
        parts.append(shape.text_part(text, logprobs_in(logprobs)))
    if isinstance(message.get("refusal"), str) and message["refusal"]:
        parts.append(shape.refusal_part(message["refusal"]))
    return parts


def _call(call: Document, status: str) -> Document:
    function = call.get("function")
    function = function if isinstance(function, dict) else {}
    call_id = call.get("id") or shape.new_id("call")
    return shape.call_item(
        shape.new_id("fc"), status, str(call_id), str(function.get("name") or ""), arguments_of(function)
    )
