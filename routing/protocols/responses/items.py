"""Content parts and tools of a Responses request in chat's words; what chat has no words for is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from routing.core.errors import Refusal, parameter_invalid, responses_not_supported

Document = dict[str, Any]

_TEXT_PARTS: Final = frozenset({"input_text", "output_text", "text", "summary_text", "reasoning_text"})
_FORMATS: Final = ("name", "schema", "strict", "description")
_FUNCTION: Final = ("name", "description", "parameters", "strict")


def cannot(what: str) -> Refusal:
    """Why a request cannot be translated."""
    return responses_not_supported(f"{what} cannot be translated to chat completions")


def wrong(param: str, message: str) -> Refusal:
    return parameter_invalid(param, message)


def content_of(content: Any, where: str) -> str | list[Document]:
    """The content of a message: text as it is, parts as chat's parts; a single text as that text.

    Raises: Refusal (400; 501 for a part that chat does not know).
    """
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise wrong(where, f"'{where}' must be a string or an array of content parts.")
    parts = [_part(part, f"{where}[{index}]") for index, part in enumerate(content)]
    if len(parts) == 1 and parts[0]["type"] == "text":
        return str(parts[0]["text"])
    return parts or ""


def _part(part: Any, where: str) -> Document:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str):
        raise wrong(where, f"'{where}' is not a content part with a 'type'.")
    if kind in _TEXT_PARTS:
        return {"type": "text", "text": _text(part, "text", where)}
    if kind == "refusal":
        return {"type": "text", "text": _text(part, "refusal", where)}
    if kind == "input_image":
        return _image(part, where)
    if kind == "input_file":
        return _file(part, where)
    if kind == "input_audio" and isinstance(part.get("input_audio"), dict):
        return {"type": "input_audio", "input_audio": part["input_audio"]}
    raise cannot(f"content of type '{kind}'")


def _image(part: Document, where: str) -> Document:
    if part.get("image_url") is None and part.get("file_id") is not None:
        raise cannot("an image given by 'file_id'")
    image: Document = {"url": _text(part, "image_url", where)}
    if part.get("detail") is not None:
        image["detail"] = part["detail"]
    return {"type": "image_url", "image_url": image}


def _file(part: Document, where: str) -> Document:
    if part.get("file_data") is None:
        raise cannot("a file given by 'file_id' or 'file_url'")
    file = {name: part[name] for name in ("filename", "file_data") if part.get(name) is not None}
    return {"type": "file", "file": file}


def _text(part: Document, name: str, where: str) -> str:
    value = part.get(name)
    if not isinstance(value, str):
        raise wrong(f"{where}.{name}", f"'{where}.{name}' must be a string.")
    return value


def tools_of(tools: Any, choice: Any) -> Document:
    """`tools` and `tool_choice` of the chat request; empty where there are none.

    Raises: Refusal (400; 501 for a tool that the server would have to run itself).
    """
    if tools is not None and not isinstance(tools, list):
        raise wrong("tools", "'tools' must be an array.")
    functions = [_function(tool, index) for index, tool in enumerate(tools or ())]
    allowed, chosen = _choice(choice)
    if allowed is not None:
        functions = [function for function in functions if function["function"].get("name") in allowed]
    asked: Document = {"tools": functions} if functions else {}
    if chosen is not None and (functions or chosen == "none"):
        asked["tool_choice"] = chosen
    return asked


def _function(tool: Any, index: int) -> Document:
    if not isinstance(tool, dict) or not isinstance(tool.get("type"), str):
        raise wrong(f"tools[{index}]", f"'tools[{index}]' is not a tool with a 'type'.")
    if tool["type"] != "function":
        raise cannot(f"the tool '{tool['type']}'")
    return {"type": "function", "function": _present(tool, _FUNCTION)}


def _choice(choice: Any) -> tuple[frozenset[str] | None, Any]:
    """The names of the tools that alone may be called (None: any), and chat's `tool_choice`."""
    if choice is None or isinstance(choice, str):
        return None, choice
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind == "function":
        return None, {"type": "function", "function": {"name": choice.get("name")}}
    if kind == "allowed_tools":
        tools = choice.get("tools")
        if not isinstance(tools, list):
            raise wrong("tool_choice.tools", "'tool_choice.tools' must be an array.")
        allowed = frozenset(str(tool.get("name")) for tool in tools if isinstance(tool, dict))
        return allowed, choice.get("mode", "auto")
    raise cannot(f"the tool choice '{kind}'")


def format_of(text: Any) -> Document:
    """`response_format` and `verbosity` of the chat request, from `text`. Raises: Refusal."""
    if text is None:
        return {}
    if not isinstance(text, dict):
        raise wrong("text", "'text' must be an object.")
    asked: Document = {"verbosity": text["verbosity"]} if text.get("verbosity") is not None else {}
    format = text.get("format")
    kind = format.get("type") if isinstance(format, dict) else None
    if format is None or kind == "text":
        return asked
    if kind == "json_object":
        return {**asked, "response_format": {"type": "json_object"}}
    if kind == "json_schema":
        return {**asked, "response_format": {"type": "json_schema", "json_schema": _present(format, _FORMATS)}}
    raise cannot(f"the text format '{kind}'")


def _present(given: Document, names: Sequence[str]) -> Document:
    return {name: given[name] for name in names if given.get(name) is not None}
