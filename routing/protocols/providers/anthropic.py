"""Chat completions over Anthropic's Messages API.

https://docs.anthropic.com/en/api/messages, https://docs.anthropic.com/en/api/messages-streaming
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from llmlb_site.lib.sse import data_of
from llmlb_site.lib.upstream.faults import MalformedFault
from routing.core.errors import parameter_invalid
from routing.core.table import NodeEntry
from routing.core.usage import NOT_TOLD, Count, Tokens, counts_in
from routing.protocols.base import Answer, Call, Plan
from routing.protocols.providers import chat

PATH: Final = "/v1/messages"
VERSION: Final = (b"anthropic-version", b"2023-06-01")
JSON: Final = (b"content-type", b"application/json")
# Anthropic wants a limit, OpenAI's clients need not give one.
DEFAULT_MAX_TOKENS: Final = 4096
FINISH: Final[chat.FinishReasons] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_CHOICES: Final = {"auto": "auto", "none": "none", "required": "any"}
_EFFORTS: Final = ("low", "medium", "high")


def plan_chat(call: Call, provider: NodeEntry) -> Plan:
    """Raises: Refusal (400), for what cannot be said to Anthropic."""
    return Plan(
        path=PATH,
        body=msgspec.json.encode(request(call)),
        read_answer=lambda body: read_answer(body, call.asked_model),
        open_stream=lambda: MessageStream(call.asked_model, tell_usage=call.wants_usage_chunk),
        headers=(VERSION, JSON),
    )


# --- the request ------------------------------------------------------------------------------------------------------


def request(call: Call) -> dict[str, Any]:
    """A chat request as Anthropic takes it."""
    given = chat.request_of(call)
    if given.get("n", 1) != 1:
        raise parameter_invalid("n", "Anthropic gives one answer at a time: 'n' must be 1.")
    system, messages = _conversation(given["messages"])
    asked: dict[str, Any] = {
        "model": call.model,
        "messages": messages,
        "max_tokens": given.get("max_completion_tokens", given.get("max_tokens", DEFAULT_MAX_TOKENS)),
        "stream": call.streaming,
    }
    if system:
        asked["system"] = system
    if "temperature" in given:
        asked["temperature"] = min(given["temperature"], 1)  # OpenAI's goes up to 2
    asked.update({name: given[name] for name in ("top_p", "top_k", "thinking") if name in given})
    if stops := chat.stops_of(given):
        asked["stop_sequences"] = stops
    if isinstance(given.get("user"), str):
        asked["metadata"] = {"user_id": given["user"]}
    return {**asked, **_tools(given), **_output(given)}


def _conversation(messages: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The system's texts, and the turns: results of tools go together into one turn of the user."""
    system: list[dict[str, Any]] = []
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message["role"] in ("system", "developer"):
            system += [_block(part) for part in chat.parts_of(message.get("content"))]
            continue
        role = "assistant" if message["role"] == "assistant" else "user"
        blocks = _blocks(message)
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    return system, turns


def _blocks(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    blocks = [_block(part) for part in chat.parts_of(message.get("content"))]
    if message["role"] in ("tool", "function"):
        return [{"type": "tool_result", "tool_use_id": str(message.get("tool_call_id", "")), "content": blocks}]
    return blocks + [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments}
        for call in chat.tool_calls_of(message)
    ]


def _block(part: Mapping[str, Any]) -> dict[str, Any]:
    match part.get("type"):
        case "text" | "refusal":
            block: dict[str, Any] = {"type": "text", "text": str(part.get("text", part.get("refusal", "")))}
            if "cache_control" in part:
                block["cache_control"] = part["cache_control"]
            return block
        case "image_url":
            return {"type": "image", "source": _source(chat.image_url(part))}
        case "file":
            file = part.get("file")
            data = file.get("file_data") if isinstance(file, dict) else None
            if isinstance(data, str):
                return {"type": "document", "source": _source(data)}
    raise chat.unsupported_part(part, "Anthropic")


def _source(url: str) -> dict[str, str]:
    data = chat.data_of_url(url)
    if data is None:
        return {"type": "url", "url": url}
    return {"type": "base64", "media_type": data[0], "data": data[1]}


def _tools(given: Mapping[str, Any]) -> dict[str, Any]:
    functions = chat.functions_of(given)
    if not functions:
        return {}
    tools = [
        {
            "name": function["name"],
            "description": function.get("description") or "",
            "input_schema": function.get("parameters") or {"type": "object", "properties": {}},
        }
        for function in functions
    ]
    choice = _choice(given)
    return {"tools": tools, "tool_choice": choice} if choice else {"tools": tools}


def _choice(given: Mapping[str, Any]) -> dict[str, Any]:
    wanted = given.get("tool_choice")
    name = chat.chosen_function(wanted)
    choice: dict[str, Any] = {"type": "tool", "name": name} if name is not None else {}
    if isinstance(wanted, str) and wanted in _CHOICES:
        choice = {"type": _CHOICES[wanted]}
    if given.get("parallel_tool_calls") is False and choice.get("type") != "none":
        choice = {**(choice or {"type": "auto"}), "disable_parallel_tool_use": True}
    return choice


def _output(given: Mapping[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = {}
    schema = chat.schema_of(given.get("response_format"))
    if schema is not None:
        config["format"] = {"type": "json_schema", "schema": schema}
    if given.get("reasoning_effort") in _EFFORTS:
        config["effort"] = given["reasoning_effort"]
    return {"output_config": config} if config else {}


# --- the answer -------------------------------------------------------------------------------------------------------


class Usage(msgspec.Struct):
    """Anthropic counts what it read from its cache apart."""

    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cache_read_input_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None

    def merged(self, later: Usage) -> Usage:
        """What a later event of the stream says counts; what it does not say stays."""
        told = {name: value for name, value in msgspec.structs.asdict(later).items() if value is not None}
        return msgspec.structs.replace(self, **told)

    def tokens(self) -> Tokens | None:
        if self.input_tokens is None:
            return None
        prompt = self.input_tokens + (self.cache_read_input_tokens or 0)
        return Tokens(prompt + (self.cache_creation_input_tokens or 0), self.output_tokens or 0)

    def document(self) -> dict[str, Any] | None:
        tokens = self.tokens()
        return chat.usage_document(tokens, cached=self.cache_read_input_tokens or 0) if tokens is not None else None


class Block(msgspec.Struct):
    type: str
    text: str = ""
    thinking: str = ""
    id: str = ""
    name: str = ""
    input: Any = None


class Message(msgspec.Struct):
    content: list[Block]
    id: str = ""
    stop_reason: str | None = None
    usage: msgspec.Raw = NOT_TOLD


class Delta(msgspec.Struct):
    type: str = ""
    text: str = ""
    thinking: str = ""
    partial_json: str = ""
    stop_reason: str | None = None


class Event(msgspec.Struct):
    type: str
    index: int = 0
    message: Message | None = None
    content_block: Block | None = None
    delta: Delta | None = None
    usage: msgspec.Raw = NOT_TOLD


_message: Final = msgspec.json.Decoder(Message)
_event: Final = msgspec.json.Decoder(Event)
_usage: Final = msgspec.json.Decoder(Usage)


def finish_reason(stop_reason: str | None) -> str:
    return FINISH.get(stop_reason or "", "stop")


def read_answer(body: bytes, model: str) -> Answer:
    """A message as a chat completion. Raises: MalformedFault."""
    try:
        message = _message.decode(body)
    except chat.UNREADABLE:
        raise MalformedFault("the answer is not a message") from None
    said = chat.Said()
    for block in message.content:
        if block.type == "text":
            said.text.append(block.text)
        elif block.type == "thinking":
            said.reasoning.append(block.thinking)
        elif block.type == "tool_use":
            arguments = msgspec.json.encode(block.input if block.input is not None else {}).decode()
            said.tool_calls.append(chat.tool_call(block.id, block.name, arguments))
    choice = said.choice(0, finish_reason(message.stop_reason))
    id = chat.new_id(message.id, "chatcmpl-")
    usage = counts_in(message.usage, _usage) or Usage()
    body = chat.completion(id, model, [choice], usage.document())
    return Answer(body, usage.tokens(), lambda: said.text)


class MessageStream:
    """A streamed message as the events of a chat completion; whole with `message_stop`."""

    def __init__(self, model: str, *, tell_usage: bool) -> None:
        self._out = chat.ChunkWriter(model)
        self._tell_usage = tell_usage
        self._usage = Usage()
        self._stop_reason: str | None = None
        self._tools: dict[int, int] = {}
        self.whole = False
        self.failed = False
        self.deltas = 0

    @property
    def tokens(self) -> Tokens | None:
        return self._usage.tokens()

    def take(self, event: bytes) -> bytes:
        data = data_of(event)
        if not data:
            return b""
        try:
            return self._take(_event.decode(data))
        except chat.UNREADABLE:
            raise MalformedFault("an event of the stream is not what the API promises") from None

    def end(self) -> bytes:
        out = self._out.delta({}, finish_reason=finish_reason(self._stop_reason))
        usage = self._usage.document()
        if self._tell_usage and usage is not None:
            out += self._out.usage(usage)
        return out + chat.DONE_EVENT

    def _take(self, event: Event) -> bytes:
        if event.usage != NOT_TOLD:
            later = counts_in(event.usage, _usage)
            self._usage = self._usage.merged(later) if later is not None else Usage()
        match event.type:
            case "message_start" if event.message is not None:
                return self._start(event.message)
            case "content_block_start" if event.content_block is not None:
                return self._open(event.index, event.content_block)
            case "content_block_delta" if event.delta is not None:
                return self._piece(event.index, event.delta)
            case "message_delta" if event.delta is not None:
                self._stop_reason = event.delta.stop_reason or self._stop_reason
            case "message_stop":
                self.whole = True
            case "error":
                self.failed = True
        return b""

    def _start(self, message: Message) -> bytes:
        self._usage = counts_in(message.usage, _usage) or Usage()
        self._out.id = chat.new_id(message.id, "chatcmpl-")
        return self._out.delta({"role": "assistant", "content": ""})

    def _open(self, index: int, block: Block) -> bytes:
        if block.type != "tool_use":
            return b""
        number = self._tools[index] = len(self._tools)
        return self._out.delta({"tool_calls": [{"index": number, **chat.tool_call(block.id, block.name, "")}]})

    def _piece(self, index: int, delta: Delta) -> bytes:
        self.deltas += 1
        if delta.type == "text_delta":
            return self._out.delta({"content": delta.text})
        if delta.type == "thinking_delta":
            return self._out.delta({"reasoning_content": delta.thinking})
        if delta.type == "input_json_delta" and index in self._tools:
            piece = {"index": self._tools[index], "function": {"arguments": delta.partial_json}}
            return self._out.delta({"tool_calls": [piece]})
        return b""
