"""A Messages request as a chat request. Pure.

https://docs.anthropic.com/en/api/messages and https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from routing.protocols.anthropic_blocks import Json, chat_messages, invalid

# Members that say the same under another name or none. `top_k` is no OpenAI parameter, but local servers know it.
_SAME: Final = {"max_tokens": "max_tokens", "temperature": "temperature", "top_p": "top_p", "top_k": "top_k"}
_CHOICES: Final = {"auto": "auto", "any": "required", "none": "none"}
# What only Anthropic's own servers can do: leaving it out in silence would change what the request means.
_FOREIGN: Final = ("mcp_servers", "container")
_THINKING: Final = frozenset({"enabled", "adaptive", "between_tools"})
# What the model does not read as text.
_NOT_READ: Final = frozenset(
    {"type", "role", "id", "tool_use_id", "source", "signature", "cache_control", "model", "metadata", "thinking"}
)


def chat_request(request: Mapping[str, Any], model: str) -> Json:
    """What to ask a server that speaks chat. Raises: Refusal (400), for what chat cannot say, by name."""
    for name in _FOREIGN:
        if request.get(name):
            raise invalid(name, "not supported by this model")
    chat: Json = {"model": model, "messages": chat_messages(request)}
    chat |= {theirs: request[ours] for ours, theirs in _SAME.items() if request.get(ours) is not None}
    if request.get("stop_sequences"):
        chat["stop"] = request["stop_sequences"]
    chat |= _tools(request)
    chat |= _answer_format(request)
    chat |= _user(request)
    if request.get("stream") is True:
        chat |= {"stream": True, "stream_options": {"include_usage": True}}
    return chat


def wants_thinking(request: Mapping[str, Any]) -> bool:
    """Whether the client asked to see how the model reasons: without that, a first block is always the answer."""
    thinking = request.get("thinking")
    if not isinstance(thinking, dict):
        return False
    return thinking.get("type") in _THINKING and thinking.get("display") != "omitted"


def texts_read(value: Any) -> Iterator[str]:
    """Every text of a request that the model will read, for an estimate of its tokens. Pictures are none."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from texts_read(item)
    elif isinstance(value, dict):
        for name, inner in value.items():
            if name in ("input", "input_schema"):
                yield msgspec.json.encode(inner).decode()
            elif name not in _NOT_READ or _is_text(name, inner):
                yield from texts_read(inner)


def _is_text(name: str, value: Any) -> bool:
    """The text of a thinking block, or of a document that is text."""
    if name == "source":
        return isinstance(value, dict) and value.get("type") in ("text", "content")
    return name == "thinking" and isinstance(value, str)


def _tools(request: Mapping[str, Any]) -> Json:
    tools = request.get("tools")
    if not tools:
        return {}
    if not isinstance(tools, list):
        raise invalid("tools", "Input should be a list")
    chat: Json = {"tools": [_function(tool, f"tools.{number}") for number, tool in enumerate(tools)]}
    choice = request.get("tool_choice")
    if choice is not None:
        chat["tool_choice"] = _choice(choice)
        if choice.get("disable_parallel_tool_use") is True:
            chat["parallel_tool_calls"] = False
    return chat


def _function(tool: Any, where: str) -> Json:
    if not isinstance(tool, dict):
        raise invalid(where, "Input should be an object")
    kind = tool.get("type")
    if kind not in (None, "custom"):
        raise invalid(f"{where}.type", f"tools of type '{kind}' are not supported by this model")
    if not isinstance(tool.get("name"), str):
        raise invalid(f"{where}.name", "Field required")
    if not isinstance(tool.get("input_schema"), dict):
        raise invalid(f"{where}.input_schema", "Field required")
    function: Json = {"name": tool["name"], "parameters": tool["input_schema"]}
    if isinstance(tool.get("description"), str):
        function["description"] = tool["description"]
    return {"type": "function", "function": function}


def _choice(choice: Any) -> str | Json:
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind == "tool":
        if not isinstance(choice.get("name"), str):
            raise invalid("tool_choice.name", "Field required")
        return {"type": "function", "function": {"name": choice["name"]}}
    if kind not in _CHOICES:
        raise invalid("tool_choice.type", "Input should be 'auto', 'any', 'tool' or 'none'")
    return _CHOICES[kind]


def _answer_format(request: Mapping[str, Any]) -> Json:
    """A JSON schema that the answer must follow, where one is given."""
    config = request.get("output_config")
    form = config.get("format") if isinstance(config, dict) else request.get("output_format")
    if not isinstance(form, dict):
        return {}
    if form.get("type") != "json_schema" or not isinstance(form.get("schema"), dict):
        raise invalid("output_config.format", "Input should have the type 'json_schema' and a schema")
    schema = {"name": "answer", "schema": form["schema"], "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _user(request: Mapping[str, Any]) -> Json:
    metadata = request.get("metadata")
    user = metadata.get("user_id") if isinstance(metadata, dict) else None
    return {"user": user} if isinstance(user, str) else {}
