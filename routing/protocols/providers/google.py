"""Chat completions and embeddings over Google's Gemini API.

https://ai.google.dev/api/generate-content, https://ai.google.dev/api/embeddings
"""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

import msgspec

from routing.core.errors import parameter_invalid
from routing.core.table import NodeEntry
from routing.protocols.base import Call, Plan
from routing.protocols.providers import chat
from routing.protocols.providers.google_answers import ContentStream, read_answer

JSON: Final = (b"content-type", b"application/json")
# What a call of a function carries where its signature was lost on the way through a client that keeps to OpenAI's
# fields: https://ai.google.dev/gemini-api/docs/thought-signatures names this value for histories made elsewhere.
NO_SIGNATURE: Final = "skip_thought_signature_validator"
_MODES: Final = {"auto": "AUTO", "none": "NONE", "required": "ANY"}
# OpenAI's parameters that Google has under another name, with the same meaning.
_SETTINGS: Final = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "max_tokens": "maxOutputTokens",
    "max_completion_tokens": "maxOutputTokens",
    "n": "candidateCount",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "seed": "seed",
}
_LEVELS: Final = {"minimal": "minimal", "low": "low", "medium": "medium", "high": "high"}
_BUDGETS: Final = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576}


def plan_chat(call: Call, provider: NodeEntry) -> Plan:
    """Raises: Refusal (400), for what cannot be said to Google."""
    method = "streamGenerateContent?alt=sse" if call.streaming else "generateContent"
    return Plan(
        path=model_path(call.model, method),
        body=msgspec.json.encode(request(call)),
        read_answer=lambda body: read_answer(body, call.asked_model),
        open_stream=lambda: ContentStream(call.asked_model, tell_usage=call.wants_usage_chunk),
        headers=(JSON,),
    )


def model_path(model: str, method: str) -> str:
    return f"/v1beta/{resource(model)}:{method}"


def resource(model: str) -> str:
    """`models/x`, quoted: nothing that a client writes leads to another method or another resource."""
    kind, slash, rest = model.partition("/")
    if not (slash and kind in ("models", "tunedModels")):
        kind, rest = "models", model
    return f"{kind}/{quote(rest, safe='')}"


def request(call: Call) -> dict[str, Any]:
    """A chat request as Google takes it."""
    given = chat.request_of(call)
    system, contents = _Conversation(given["messages"], signed=call.model.startswith("gemini-3")).read()
    asked: dict[str, Any] = {"contents": contents}
    if system:
        asked["systemInstruction"] = {"parts": system}
    if config := _config(given, call.model):
        asked["generationConfig"] = config
    return {**asked, **_tools(given)}


class _Conversation:
    """Google's turns alternate: what follows in the same role goes into the same turn. Results name the function."""

    def __init__(self, messages: list[dict[str, Any]], *, signed: bool) -> None:
        self._messages = messages
        self._signed = signed
        self._names: dict[str, str] = {}

    def read(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        system: list[dict[str, Any]] = []
        turns: list[dict[str, Any]] = []
        for message in self._messages:
            if message["role"] in ("system", "developer"):
                system += [_part(part) for part in chat.parts_of(message.get("content"))]
                continue
            role = "model" if message["role"] == "assistant" else "user"
            parts = self._parts(message)
            if turns and turns[-1]["role"] == role:
                turns[-1]["parts"] += parts
            elif parts:
                turns.append({"role": role, "parts": parts})
        return system, turns

    def _parts(self, message: Mapping[str, Any]) -> list[dict[str, Any]]:
        if message["role"] in ("tool", "function"):
            return [self._result(message)]
        return [_part(part) for part in chat.parts_of(message.get("content"))] + [
            self._call(number, call) for number, call in enumerate(chat.tool_calls_of(message))
        ]

    def _call(self, number: int, call: chat.ToolCall) -> dict[str, Any]:
        self._names[call.id] = call.name
        part: dict[str, Any] = {"functionCall": {"name": call.name, "args": call.arguments}}
        signature = _signature(call.raw) or (NO_SIGNATURE if self._signed and number == 0 else None)
        if signature is not None:
            part["thoughtSignature"] = signature
        return part

    def _result(self, message: Mapping[str, Any]) -> dict[str, Any]:
        id = str(message.get("tool_call_id", ""))
        name = message.get("name") or self._names.get(id) or id
        text = chat.text_of(message.get("content"))
        try:
            value = msgspec.json.decode(text)
        except chat.UNREADABLE:
            value = text
        response = value if isinstance(value, dict) else {"result": value}
        return {"functionResponse": {"name": str(name), "response": response}}


def _signature(call: Mapping[str, Any]) -> str | None:
    """Where Google's own OpenAI-compatible API puts it."""
    extra = call.get("extra_content")
    google = extra.get("google") if isinstance(extra, dict) else None
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    return signature if isinstance(signature, str) else None


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    match part.get("type"):
        case "text" | "refusal":
            return {"text": str(part.get("text", part.get("refusal", "")))}
        case "image_url":
            return _media(chat.image_url(part))
        case "input_audio":
            audio = part.get("input_audio")
            if isinstance(audio, dict) and isinstance(audio.get("data"), str):
                return {"inlineData": {"mimeType": f"audio/{audio.get('format', 'wav')}", "data": audio["data"]}}
        case "file":
            file = part.get("file")
            if isinstance(file, dict) and isinstance(file.get("file_data"), str):
                return _media(file["file_data"])
    raise chat.unsupported_part(part, "Google")


def _media(url: str) -> dict[str, Any]:
    data = chat.data_of_url(url)
    if data is not None:
        return {"inlineData": {"mimeType": data[0], "data": data[1]}}
    media_type = mimetypes.guess_type(url.partition("?")[0])[0] or "image/jpeg"
    return {"fileData": {"mimeType": media_type, "fileUri": url}}


def _config(given: Mapping[str, Any], model: str) -> dict[str, Any]:
    config: dict[str, Any] = {theirs: given[ours] for ours, theirs in _SETTINGS.items() if ours in given}
    if stops := chat.stops_of(given):
        config["stopSequences"] = stops
    wanted = given.get("response_format")
    if isinstance(wanted, dict) and wanted.get("type") in ("json_object", "json_schema"):
        config["responseMimeType"] = "application/json"
        schema = chat.schema_of(wanted)
        if schema is not None:
            config["responseJsonSchema"] = schema
    effort = given.get("reasoning_effort")
    if model.startswith("gemini-2.5") and isinstance(effort, str) and effort in _BUDGETS:
        config["thinkingConfig"] = {"thinkingBudget": _BUDGETS[effort]}
    elif isinstance(effort, str) and effort in _LEVELS:
        config["thinkingConfig"] = {"thinkingLevel": _LEVELS[effort]}
    return config


def _tools(given: Mapping[str, Any]) -> dict[str, Any]:
    functions = chat.functions_of(given)
    if not functions:
        return {}
    asked: dict[str, Any] = {"tools": [{"functionDeclarations": [_declaration(function) for function in functions]}]}
    choice = given.get("tool_choice")
    name = chat.chosen_function(choice)
    if name is not None:
        asked["toolConfig"] = {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": [name]}}
    elif isinstance(choice, str) and choice in _MODES:
        asked["toolConfig"] = {"functionCallingConfig": {"mode": _MODES[choice]}}
    return asked


def _declaration(function: Mapping[str, Any]) -> dict[str, Any]:
    declaration = {"name": function["name"], "description": function.get("description") or ""}
    if function.get("parameters"):
        declaration["parametersJsonSchema"] = function["parameters"]
    return declaration


def texts_to_embed(given: Any) -> list[str]:
    """Raises: Refusal (400), for what is no text: Google takes no token numbers."""
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise parameter_invalid("input", "'input' must be a text or a list of texts.")
    return texts
