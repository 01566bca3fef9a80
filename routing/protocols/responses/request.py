"""A Responses request in the words of chat completions: for nodes that know only those."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from routing.core.errors import body_invalid
from routing.protocols.responses.items import cannot, content_of, format_of, tools_of, wrong

Document = dict[str, Any]

# Needs what only a server that keeps responses has.
_STATEFUL: Final = ("previous_response_id", "conversation", "prompt")
# Read here, or without a meaning in chat. Whatever is not named passes on as it is: tomorrow's and vendors' parameters.
_TAKEN: Final = frozenset(
    {
        *_STATEFUL,
        "background",
        "context_management",
        "include",
        "input",
        "instructions",
        "max_output_tokens",
        "max_tool_calls",
        "metadata",
        "model",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning",
        "safety_identifier",
        "service_tier",
        "store",
        "stream",
        "stream_options",
        "text",
        "tool_choice",
        "tools",
        "top_logprobs",
        "truncation",
    }
)
_ROLES: Final = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
_LOGPROBS: Final = "message.output_text.logprobs"


def read(body: bytes) -> Document:
    """The request. Raises: Refusal (400)."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise body_invalid("The request body is not valid JSON.") from None
    if not isinstance(document, dict):
        raise body_invalid("The request body must be a JSON object.")
    return document


def to_chat(request: Document, model: str) -> Document:
    """The chat request that asks `model` the same.

    Raises: Refusal: 501 for what chat cannot do, 400 for what is no Responses request.
    """
    _refuse_stateful(request)
    chat: Document = {"model": model, "messages": _messages(request)}
    chat |= {name: value for name, value in request.items() if name not in _TAKEN and value is not None}
    if request.get("max_output_tokens") is not None:
        chat["max_tokens"] = request["max_output_tokens"]
    chat |= tools_of(request.get("tools"), request.get("tool_choice"))
    if "tools" not in chat:
        chat.pop("parallel_tool_calls", None)
    chat |= format_of(request.get("text"))
    chat |= _reasoning(request.get("reasoning"))
    chat |= _logprobs(request)
    if request.get("stream") is True:
        chat |= {"stream": True, "stream_options": {"include_usage": True}}
    return chat


def _refuse_stateful(request: Document) -> None:
    for name in _STATEFUL:
        if request.get(name) is not None:
            raise cannot(f"'{name}'")
    if request.get("background") is True:
        raise cannot("'background'")


def _reasoning(reasoning: Any) -> Document:
    effort = reasoning.get("effort") if isinstance(reasoning, dict) else None
    return {"reasoning_effort": effort} if effort is not None else {}


def _logprobs(request: Document) -> Document:
    include = request.get("include")
    top = request.get("top_logprobs")
    if not top and not (isinstance(include, list) and _LOGPROBS in include):
        return {}
    return {"logprobs": True, **({"top_logprobs": top} if top else {})}


# --- the conversation ------------------------------------------------------------------------------------------------


def _messages(request: Document) -> list[Document]:
    conversation = _Conversation()
    instructions = request.get("instructions")
    if instructions is not None:
        conversation.say("system", content_of(instructions, "instructions"))
    given = request.get("input")
    if isinstance(given, str):
        conversation.say("user", given)
    elif isinstance(given, list):
        for index, item in enumerate(given):
            conversation.add(item, f"input[{index}]")
    else:
        raise wrong("input", "'input' must be a string or an array of items.")
    return conversation.messages


class _Conversation:
    """Chat messages, made from items. One turn of the assistant is several items, but one message."""

    def __init__(self) -> None:
        self.messages: list[Document] = []
        self._reasoning = ""

    def add(self, item: Any, where: str) -> None:
        """Raises: Refusal."""
        if not isinstance(item, dict):
            raise wrong(where, f"'{where}' must be an object.")
        kind = item.get("type") or "message"
        if kind == "message":
            self._add_message(item, where)
        elif kind == "function_call":
            self._add_call(item, where)
        elif kind == "function_call_output":
            self._add_output(item, where)
        elif kind == "reasoning":
            self._add_reasoning(item)
        else:
            raise cannot(f"an input item of type '{kind}'")

    def say(self, role: str, content: str | list[Document]) -> None:
        last = self.messages[-1] if self.messages else None
        if role == "system":
            content = _plain(content)
            if last is not None and last["role"] == "system":
                # Many chat templates allow one system message only, and only at the beginning.
                last["content"] = _joined(last["content"], content)
                return
        self.messages.append({"role": role, "content": content})

    def _add_message(self, item: Document, where: str) -> None:
        role = next((role for name, role in _ROLES.items() if name == item.get("role")), None)
        if role is None:
            raise wrong(f"{where}.role", f"'{where}.role' must be user, assistant, system or developer.")
        content = content_of(item.get("content"), f"{where}.content")
        if role != "assistant":
            self._reasoning = ""
            self.say(role, content)
            return
        turn = self._turn()
        said = turn["content"]
        turn["content"] = _plain(content) if said is None else _joined(said, _plain(content))

    def _add_call(self, item: Document, where: str) -> None:
        for name in ("call_id", "name", "arguments"):
            if not isinstance(item.get(name), str):
                raise wrong(f"{where}.{name}", f"'{where}.{name}' must be a string.")
        function = {"name": item["name"], "arguments": item["arguments"]}
        calls = self._turn().setdefault("tool_calls", [])
        calls.append({"id": item["call_id"], "type": "function", "function": function})

    def _add_output(self, item: Document, where: str) -> None:
        if not isinstance(item.get("call_id"), str):
            raise wrong(f"{where}.call_id", f"'{where}.call_id' must be a string.")
        content = _plain(content_of(item.get("output"), f"{where}.output"))
        self.messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": content})

    def _add_reasoning(self, item: Document) -> None:
        """Said with the turn that it led to. Of summaries and encrypted reasoning a chat server can make nothing."""
        parts = item.get("content")
        texts = [part.get("text") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
        self._reasoning += "".join(text for text in texts if isinstance(text, str))

    def _turn(self) -> Document:
        """The assistant's message that is being gathered."""
        if not self.messages or self.messages[-1]["role"] != "assistant":
            self.messages.append({"role": "assistant", "content": None})
        turn = self.messages[-1]
        if self._reasoning:
            turn["reasoning_content"] = turn.get("reasoning_content", "") + self._reasoning
            self._reasoning = ""
        return turn


def _plain(content: str | list[Document]) -> str | list[Document]:
    """Parts that are all text as one text: of a message that is not a user's many servers take nothing else."""
    if isinstance(content, list) and all(part["type"] == "text" for part in content):
        return "\n".join(part["text"] for part in content)
    return content


def _joined(one: str | list[Document], other: str | list[Document]) -> str | list[Document]:
    if isinstance(one, str) and isinstance(other, str):
        return "\n\n".join(text for text in (one, other) if text)
    return [*_as_parts(one), *_as_parts(other)]


def _as_parts(content: str | list[Document]) -> list[Document]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content
