"""The OpenAPI 3.1 document of `/v1/*`, made from the descriptions that serve it.

It says what the gateway itself relies on and checks. Everything else of a body belongs to the API's own reference and
to the node: it passes through, so it is allowed here too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from llmlb_site import __version__
from routing.protocols.base import Api, Range
from routing.protocols.registry import APIS

Schema = dict[str, Any]

_ANY_CONTENT: Final[Schema] = {"oneOf": [{"type": "string"}, {"type": "array", "items": {}}]}
_MESSAGES: Final[Schema] = {"type": "array", "items": {"type": "object"}}
_FILE: Final[Schema] = {"type": "string", "format": "binary"}

# What each API needs beside the model: the members without which no node could answer.
_NEEDED: Final[Mapping[str, dict[str, Schema]]] = {
    "/v1/chat/completions": {"messages": _MESSAGES},
    "/v1/completions": {"prompt": _ANY_CONTENT},
    "/v1/embeddings": {"input": _ANY_CONTENT},
    "/v1/responses": {"input": _ANY_CONTENT},
    "/v1/messages": {"messages": _MESSAGES, "max_tokens": {"type": "integer", "minimum": 1}},
    "/v1/messages/count_tokens": {"messages": _MESSAGES},
    "/v1/rerank": {"query": {"type": "string"}, "documents": {"type": "array", "items": {}}},
    "/v1/audio/speech": {"input": {"type": "string"}, "voice": {}},
    "/v1/audio/transcriptions": {"file": _FILE},
    "/v1/audio/translations": {"file": _FILE},
    "/v1/images/generations": {"prompt": {"type": "string"}},
    "/v1/images/edits": {"image": _FILE, "prompt": {"type": "string"}},
    "/v1/images/variations": {"image": _FILE},
}
_SUMMARIES: Final[Mapping[str, str]] = {
    "chat": "Chat completion",
    "completion": "Text completion",
    "embedding": "Embeddings",
    "rerank": "Rerank documents",
    "speech": "Text to speech",
    "transcription": "Speech to text",
    "translation": "Speech to English text",
}
_REFUSALS: Final[Mapping[str, str]] = {
    "400": "The request cannot be served as it is",
    "401": "No API key, or not a valid one",
    "403": "The key may not do this, or not with this model",
    "404": "No node knows the model",
    "413": "The body is too large",
    "429": "The queue is full, or a limit of the key is reached",
    "500": "The gateway failed",
    "501": "No holder of the model serves this API",
    "502": "The node failed",
    "503": "No node can serve the model now",
    "504": "The node or the queue took too long",
    "529": "Overloaded (Anthropic's status)",
}


def document() -> Schema:
    """The whole document. Made anew: it is asked for rarely."""
    paths: dict[str, Schema] = {path: {"post": _operation(api)} for path, api in APIS.items()}
    paths["/v1/models"] = {"get": _reading("List the models that the key may use", "ModelList")}
    paths["/v1/models/{model}"] = {
        "get": {
            **_reading("One model", "Model"),
            "parameters": [{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}],
        }
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "llmlb inference API", "version": __version__},
        "security": [{"bearer": []}, {"x-api-key": []}],
        "paths": dict(sorted(paths.items())),
        "components": {"securitySchemes": _SECURITY, "schemas": _SCHEMAS},
    }


def _operation(api: Api) -> Schema:
    media_type = "multipart/form-data" if api.read_form is not None else "application/json"
    name = api.path.removeprefix("/v1/").replace("/", "_")
    return {
        "operationId": f"post_{name}",
        "summary": _SUMMARIES.get(api.kind, api.kind.replace("_", " ").capitalize()),
        "description": f"The model must be able to do: {api.capability}.",
        "requestBody": {"required": True, "content": {media_type: {"schema": _body(api)}}},
        "responses": {"200": _answer(api), **_errors(api)},
    }


def _body(api: Api) -> Schema:
    needed = _NEEDED.get(api.path, {})
    ranges = {name: {"anyOf": [_range(allowed), {"type": "null"}]} for name, allowed in api.ranges.items()}
    return {
        "type": "object",
        "required": ["model", *needed],
        "properties": {"model": {"type": "string", "minLength": 1}, "stream": {"type": "boolean"}, **ranges, **needed},
        "additionalProperties": True,
    }


def _range(allowed: Range) -> Schema:
    schema: Schema = {"type": "integer" if allowed.integer else "number", "minimum": allowed.low}
    if allowed.high != float("inf"):
        schema["maximum"] = allowed.high
    return schema


def _answer(api: Api) -> Schema:
    content: Schema = {"application/json": {"schema": {"type": "object"}}, "text/event-stream": {"schema": {}}}
    if api.path.startswith("/v1/audio/"):
        content["*/*"] = {"schema": {}}
    return {"description": "The node's answer", "content": content, "headers": _HEADERS}


def _errors(api: Api) -> Schema:
    shape = "AnthropicError" if api.path.startswith("/v1/messages") else "Error"
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{shape}"}}}
    return {status: {"description": text, "content": content} for status, text in _REFUSALS.items()}


def _reading(summary: str, schema: str) -> Schema:
    answer = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    refusals = {status: {"description": _REFUSALS[status], "content": error} for status in ("401", "403", "404")}
    return {
        "operationId": f"get_{schema.lower()}",
        "summary": summary,
        "responses": {"200": {"description": "OK", "content": answer}, **refusals},
    }


_HEADERS: Final[Schema] = {
    "X-Request-ID": {"schema": {"type": "string"}, "description": "The client's own if it was well-formed."},
    "X-LLMLB-Node": {"schema": {"type": "string"}, "description": "The node that answered."},
    "X-LLMLB-Attempts": {"schema": {"type": "integer"}, "description": "How many nodes were tried."},
}
_SECURITY: Final[Schema] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key of the gateway."},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
_SCHEMAS: Final[Schema] = {
    "Error": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message"],
                "properties": {
                    "message": {"type": "string"},
                    "type": {"type": ["string", "null"]},
                    "param": {"type": ["string", "null"]},
                    "code": {"type": ["string", "integer", "null"]},
                },
            }
        },
    },
    "AnthropicError": {
        "type": "object",
        "required": ["type", "error"],
        "properties": {
            "type": {"const": "error"},
            "error": {
                "type": "object",
                "required": ["type", "message"],
                "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
    "Model": {
        "type": "object",
        "required": ["id", "object", "created", "owned_by"],
        "properties": {
            "id": {"type": "string"},
            "object": {"const": "model"},
            "created": {"type": "integer"},
            "owned_by": {"type": "string"},
            "capabilities": {"type": "array", "items": {"type": "string"}},
            "capability_flags": {"type": "object", "additionalProperties": {"type": "boolean"}},
            "supported_apis": {"type": "array", "items": {"type": "string"}},
            "context_length": {"type": "integer"},
            "max_model_len": {"type": "integer"},
        },
    },
    "ModelList": {
        "type": "object",
        "required": ["object", "data"],
        "properties": {
            "object": {"const": "list"},
            "data": {"type": "array", "items": {"$ref": "#/components/schemas/Model"}},
        },
    },
}
