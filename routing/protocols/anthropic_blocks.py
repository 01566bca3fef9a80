"""Anthropic's turns and content blocks as chat messages. Pure.

What chat cannot say is refused by name; what is only a hint (cache_control, citations) is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from routing.core.errors import Refusal, parameter_invalid

Json = dict[str, Any]
PARAGRAPH: Final = "\n\n"
ERROR_MARK: Final = "Error: "


def invalid(where: str, message: str) -> Refusal:
    """A 400 in the words that Anthropic uses: where, and what."""
    return parameter_invalid(where, f"{where}: {message}")


def chat_messages(request: Mapping[str, Any]) -> list[Json]:
    """The whole conversation, system first. Raises: Refusal (400)."""
    system = _text_only(request.get("system"), "system")
    messages: list[Json] = [{"role": "system", "content": system}] if system else []
    for number, turn in enumerate(request["messages"]):
        messages += _chat_turn(turn, f"messages.{number}")
    return messages


def check_turns(messages: list[Any]) -> None:
    """Whether these are turns with content blocks, of whatever kind. Raises: Refusal (400).

    Checked for every node: llama.cpp answers 500 to a text block without text, and that would look like its own fault.
    """
    for number, turn in enumerate(messages):
        where = f"messages.{number}"
        _, content = _role_and_content(turn, where)
        for place, block in _blocks(content, f"{where}.content"):
            if block["type"] == "tool_result" and block.get("content") is not None:
                _check_texts(block["content"], f"{place}.content")
        _check_texts(content, f"{where}.content")


def _check_texts(content: Any, where: str) -> None:
    for place, block in _blocks(content, where):
        if block["type"] == "text":
            _string(block, "text", place)


def _role_and_content(turn: Any, where: str) -> tuple[str, Any]:
    role = turn.get("role") if isinstance(turn, dict) else None
    if role not in ("user", "assistant", "system"):
        raise invalid(f"{where}.role", "Input should be 'user', 'assistant' or 'system'")
    if turn.get("content") is None:
        raise invalid(f"{where}.content", "Field required")
    return role, turn["content"]


def _chat_turn(turn: Any, where: str) -> list[Json]:
    role, content = _role_and_content(turn, where)
    if role == "system":
        return [{"role": "system", "content": _text_only(content, f"{where}.content")}]
    blocks = list(_blocks(content, f"{where}.content"))
    return _user(blocks) if role == "user" else [_assistant(blocks)]


def _blocks(content: Any, where: str) -> Iterator[tuple[str, Json]]:
    """Every content block with its place."""
    if isinstance(content, str):
        yield where, {"type": "text", "text": content}
        return
    if not isinstance(content, list):
        raise invalid(where, "Input should be a string or a list of content blocks")
    for number, block in enumerate(content):
        if not isinstance(block, dict) or not isinstance(block.get("type"), str):
            raise invalid(f"{where}.{number}", "Input should be a content block with a type")
        yield f"{where}.{number}", block


# --- a user's turn ----------------------------------------------------------------------------------------------------


def _user(blocks: list[tuple[str, Json]]) -> list[Json]:
    """Tool results become messages of their own and come first: chat wants them right after the calls."""
    results: list[Json] = []
    parts: list[Json] = []
    for where, block in blocks:
        if block["type"] == "tool_result":
            message, pictures = _tool_result(block, where)
            results.append(message)
            parts += pictures
        else:
            parts += _parts(block, where)
    if parts or not results:
        results.append({"role": "user", "content": _content(parts)})
    return results


def _tool_result(block: Json, where: str) -> tuple[Json, list[Json]]:
    """The tool's message, and what of the result only a user's message may hold."""
    call = _string(block, "tool_use_id", where)
    parts: list[Json] = []
    if block.get("content") is not None:
        for place, inner in _blocks(block["content"], f"{where}.content"):
            parts += _parts(inner, place)
    text = PARAGRAPH.join(part["text"] for part in parts if part["type"] == "text")
    pictures = [part for part in parts if part["type"] != "text"]
    if pictures:
        pictures.insert(0, {"type": "text", "text": f"Pictures in the result of {call}:"})
    mark = ERROR_MARK if block.get("is_error") is True else ""
    return {"role": "tool", "tool_call_id": call, "content": mark + text}, pictures


def _content(parts: list[Json]) -> str | list[Json]:
    """Text alone as a string: not every server reads a list."""
    if all(part["type"] == "text" for part in parts):
        return PARAGRAPH.join(part["text"] for part in parts)
    return parts


def _parts(block: Json, where: str) -> list[Json]:
    """One block of a user, as parts of a chat message. Raises: Refusal (400), for what chat has no part for."""
    kind = block["type"]
    if kind == "text":
        return [{"type": "text", "text": _string(block, "text", where)}]
    if kind == "image":
        return [{"type": "image_url", "image_url": {"url": _picture(block, where)}}]
    if kind == "document":
        return _document(block, where)
    raise _untranslatable(block, where)


def _picture(block: Json, where: str) -> str:
    source = _source(block, where)
    if source["type"] == "base64":
        media_type = _string(source, "media_type", f"{where}.source")
        return f"data:{media_type};base64,{_string(source, 'data', f'{where}.source')}"
    if source["type"] == "url":
        return _string(source, "url", f"{where}.source")
    raise invalid(f"{where}.source.type", f"an image source of type '{source['type']}' is not supported by this model")


def _document(block: Json, where: str) -> list[Json]:
    source = _source(block, where)
    title = block.get("title")
    parts: list[Json] = [{"type": "text", "text": title}] if isinstance(title, str) else []
    if source["type"] == "text":
        return [*parts, {"type": "text", "text": _string(source, "data", f"{where}.source")}]
    if source["type"] == "content":
        for place, inner in _blocks(source.get("content"), f"{where}.source.content"):
            parts += _parts(inner, place)
        return parts
    raise invalid(f"{where}.source.type", f"a document of type '{source['type']}' is not supported by this model")


def _source(block: Json, where: str) -> Json:
    source = block.get("source")
    if not isinstance(source, dict) or not isinstance(source.get("type"), str):
        raise invalid(f"{where}.source", "Field required")
    return source


# --- an assistant's turn ----------------------------------------------------------------------------------------------


def _assistant(blocks: list[tuple[str, Json]]) -> Json:
    """One message. Thinking goes where servers of reasoning models look for it; what only Claude can read stays out."""
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[Json] = []
    for where, block in blocks:
        if block["type"] == "text":
            texts.append(_string(block, "text", where))
        elif block["type"] == "thinking":
            thoughts.append(_string(block, "thinking", where))
        elif block["type"] == "tool_use":
            calls.append(_tool_call(block, where))
        elif block["type"] != "redacted_thinking":
            raise _untranslatable(block, where)
    message: Json = {"role": "assistant", "content": "".join(texts) if texts or not calls else None}
    if any(thoughts):
        message["reasoning_content"] = PARAGRAPH.join(thoughts)
    if calls:
        message["tool_calls"] = calls
    return message


def _tool_call(block: Json, where: str) -> Json:
    given = block.get("input", {})
    if not isinstance(given, dict):
        raise invalid(f"{where}.input", "Input should be an object")
    function = {"name": _string(block, "name", where), "arguments": msgspec.json.encode(given).decode()}
    return {"id": _string(block, "id", where), "type": "function", "function": function}


# --- small things -----------------------------------------------------------------------------------------------------


def _text_only(content: Any, where: str) -> str:
    if content is None:
        return ""
    texts = []
    for place, block in _blocks(content, where):
        if block["type"] != "text":
            raise _untranslatable(block, place)
        texts.append(_string(block, "text", place))
    return PARAGRAPH.join(texts)


def _string(block: Json, name: str, where: str) -> str:
    value = block.get(name)
    if value is None:
        raise invalid(f"{where}.{name}", "Field required")
    if not isinstance(value, str):
        raise invalid(f"{where}.{name}", "Input should be a string")
    return value


def _untranslatable(block: Json, where: str) -> Refusal:
    return invalid(f"{where}.type", f"content blocks of type '{block['type']}' are not supported by this model")
