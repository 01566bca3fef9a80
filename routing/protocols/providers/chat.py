"""OpenAI's chat, as it is read on its way to another API, and as an answer of that API is written back."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from llmlb_site.lib.sse import DONE
from routing.core.errors import Refusal, body_invalid, parameter_invalid
from routing.core.usage import Tokens
from routing.protocols.base import Call

_DATA_URL: Final = re.compile(r"data:([\w.+-]+/[\w.+-]+)(?:;[^;,]*)*;base64,(.*)", re.DOTALL)
# What decoding raises where it meets no JSON: text that is no UTF-8 passes unnoticed where nobody looks into it.
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
DONE_EVENT: Final = b"data: " + DONE + b"\n\n"
FinishReasons = Mapping[str, str]


# --- reading a request ------------------------------------------------------------------------------------------------


def document_of(call: Call) -> dict[str, Any]:
    """The client's request without its nulls, which say nothing. Raises: Refusal (400)."""
    try:
        document: dict[str, Any] = msgspec.json.decode(call.body)
    except UNREADABLE:
        raise body_invalid("The request body is not valid JSON.") from None
    return {name: value for name, value in document.items() if value is not None}


def request_of(call: Call) -> dict[str, Any]:
    """A chat request. Raises: Refusal (400), where it has no messages."""
    document = document_of(call)
    messages = document.get("messages")
    if not isinstance(messages, list) or not messages:
        raise parameter_invalid("messages", "'messages' must be a list of messages.")
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise parameter_invalid(f"messages[{number}]", "A message is an object with a role.")
    return document


def parts_of(content: Any) -> list[dict[str, Any]]:
    """The parts of a message's content; a plain text is one part. Raises: Refusal (400)."""
    if content is None or content == "":
        return []
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        return content
    raise parameter_invalid("messages", "The content of a message is a text or a list of parts.")


def text_of(content: Any) -> str:
    """All the text of a message, as one."""
    texts = (part.get("text") for part in parts_of(content))
    return "\n".join(text for text in texts if isinstance(text, str))


def image_url(part: Mapping[str, Any]) -> str:
    """Raises: Refusal (400), where an image part has none."""
    image = part.get("image_url")
    url = image.get("url") if isinstance(image, dict) else image
    if not isinstance(url, str):
        raise parameter_invalid("messages", "An image part has an 'image_url' with a 'url'.")
    return url


def data_of_url(url: str) -> tuple[str, str] | None:
    """Media type and base64 data of a data URL; None for any other."""
    match = _DATA_URL.fullmatch(url)
    return (match[1], match[2]) if match else None


def unsupported_part(part: Mapping[str, Any], provider: str) -> Refusal:
    return parameter_invalid("messages", f"A part of type '{part.get('type')}' cannot be sent to {provider}.")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool in the history of a chat."""

    id: str
    name: str
    arguments: dict[str, Any]
    raw: Mapping[str, Any] = field(repr=False)


def tool_calls_of(message: Mapping[str, Any]) -> Iterator[ToolCall]:
    """Raises: Refusal (400), where one is not what the API says."""
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list):
        raise _bad_tool_call()
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise _bad_tool_call()
        yield ToolCall(str(call.get("id", "")), function["name"], _arguments(function.get("arguments")), call)


def functions_of(request: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The functions that the model may call. Raises: Refusal (400), for a tool that is no function."""
    tools = request.get("tools", [])
    if not isinstance(tools, list):
        raise parameter_invalid("tools", "'tools' must be a list.")
    functions = [tool.get("function") if isinstance(tool, dict) else None for tool in tools]
    for function in functions:
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise parameter_invalid("tools", "Each tool is a function with a name.")
    return [function for function in functions if isinstance(function, dict)]


def chosen_function(choice: Any) -> str | None:
    """The one function that a `tool_choice` names, if it does."""
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None


def schema_of(response_format: Any) -> Any:
    """The JSON Schema that the answer has to follow, if one is given."""
    described = response_format.get("json_schema") if isinstance(response_format, dict) else None
    return described.get("schema") if isinstance(described, dict) else None


def stops_of(request: Mapping[str, Any]) -> list[str]:
    """Raises: Refusal (400)."""
    stop = request.get("stop", [])
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or not all(isinstance(text, str) for text in stops):
        raise parameter_invalid("stop", "'stop' must be a text or a list of texts.")
    return stops


def _arguments(text: Any) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(text) if isinstance(text, str) and text.strip() else {}
    except UNREADABLE:
        value = None
    if not isinstance(value, dict):
        raise parameter_invalid("messages", "The arguments of a tool call are a JSON object, as text.")
    return value


def _bad_tool_call() -> Refusal:
    return parameter_invalid("messages", "A tool call has an id and a function with a name.")


# --- writing an answer ------------------------------------------------------------------------------------------------


def new_id(given: Any, prefix: str) -> str:
    return f"{prefix}{given if isinstance(given, str) and given else uuid.uuid4().hex}"


def usage_document(tokens: Tokens, *, cached: int = 0, reasoning: int = 0) -> dict[str, Any]:
    usage: dict[str, Any] = {
        "prompt_tokens": tokens.prompt,
        "completion_tokens": tokens.completion,
        "total_tokens": tokens.total,
    }
    if cached:
        usage["prompt_tokens_details"] = {"cached_tokens": cached}
    if reasoning:
        usage["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return usage


@dataclass(slots=True)
class Said:
    """What a model said in one choice, whole."""

    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    refusal: str | None = None

    def choice(self, index: int, finish_reason: str) -> dict[str, Any]:
        content = "".join(self.text)
        message: dict[str, Any] = {"role": "assistant", "content": content if self.text else None}
        message["refusal"] = self.refusal
        if self.reasoning:
            message["reasoning_content"] = "".join(self.reasoning)
        if self.tool_calls:
            message["tool_calls"] = self.tool_calls
        return {"index": index, "message": message, "logprobs": None, "finish_reason": finish_reason}


def completion(id: str, model: str, choices: list[dict[str, Any]], usage: Mapping[str, Any] | None) -> bytes:
    """A whole chat completion."""
    document = {"id": id, "object": "chat.completion", "created": int(time.time()), "model": model, "choices": choices}
    return msgspec.json.encode({**document, "usage": usage} if usage is not None else document)


def tool_call(id: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


class ChunkWriter:
    """Writes the events of one streamed chat completion."""

    __slots__ = ("_created", "id", "model")

    def __init__(self, model: str) -> None:
        self.model = model
        self.id = new_id(None, "chatcmpl-")
        self._created = int(time.time())

    def delta(self, delta: Mapping[str, Any], index: int = 0, finish_reason: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "finish_reason": finish_reason}
        return self._event({"choices": [choice]})

    def usage(self, usage: Mapping[str, Any]) -> bytes:
        return self._event({"choices": [], "usage": usage})

    def _event(self, members: Mapping[str, Any]) -> bytes:
        head = {"id": self.id, "object": "chat.completion.chunk", "created": self._created, "model": self.model}
        return b"data: " + msgspec.json.encode({**head, **members}) + b"\n\n"
