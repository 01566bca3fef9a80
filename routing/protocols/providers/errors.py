"""Why a provider did not answer, as the client will read it: in the client's dialect, with a `provider` field."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from llmlb_site.lib.upstream.faults import NodeFault as Fault
from llmlb_site.lib.upstream.faults import TimeoutFault
from routing.core.errors import INVALID, Refusal
from routing.protocols.providers.chat import UNREADABLE

LABELS: Final = {"openai": "OpenAI", "google": "Google", "anthropic": "Anthropic"}
# OpenAI's names of what went wrong, by status: the clients' SDKs look at these.
_TYPES: Final = {
    400: INVALID,
    401: "authentication_error",
    403: "permission_error",
    404: INVALID,
    413: INVALID,
    422: INVALID,
    429: "rate_limit_error",
}
_TEXT_LIMIT: Final = 2000


def not_configured(provider: str) -> Refusal:
    message = f"The provider '{provider}' is not configured: it has no API key here, or is not enabled."
    return Refusal(401, "provider_not_configured", message, type="authentication_error", extra={"provider": provider})


def no_model(provider: str) -> Refusal:
    message = f"A model must follow the prefix '{provider}:'."
    return Refusal(400, "model_required", message, param="model", extra={"provider": provider})


def not_supported(provider: str, path: str) -> Refusal:
    message = f"The provider '{provider}' does not serve {path}."
    return Refusal(501, "not_supported_by_provider", message, extra={"provider": provider})


def network_failure(provider: str, fault: Fault) -> Refusal:
    """504 where it was silent for too long, else 502."""
    label = LABELS[provider]
    if isinstance(fault, TimeoutFault):
        status, code, message = 504, "provider_timeout", f"{label} did not answer in time."
    else:
        status, code, message = 502, "provider_connection_error", f"The connection to {label} failed."
    return Refusal(status, code, message, type="api_error", extra={"provider": provider})


def refused(provider: str, status: int, body: bytes, retry_after: str, secrets: tuple[str, ...]) -> Refusal:
    """A provider's own 4xx or 5xx, with its status and its words; without `secrets`, should it repeat one of them."""
    told = _error_in(body)
    if status in (401, 403):  # its words may hold a piece of our key, and the client can do nothing about it
        message = f"{LABELS[provider]} does not accept the API key that is configured for it, or not for this."
    else:
        message = str(told.get("message") or f"{LABELS[provider]} answered with status {status}.")[:_TEXT_LIMIT]
    for secret in secrets:
        message = message.replace(secret, "…")
    kind = told.get("type") if provider == "openai" else None
    return Refusal(
        status,
        _code(told, status),
        message,
        type=kind if isinstance(kind, str) else _TYPES.get(status, "api_error" if status >= 500 else INVALID),
        param=told["param"] if isinstance(told.get("param"), str) else None,
        headers={"Retry-After": retry_after} if retry_after else {},
        extra={"provider": provider},
    )


def _error_in(body: bytes) -> dict[str, Any]:
    """The error, wherever each of them puts it; Google's streams put it into a list."""
    try:
        document = msgspec.json.decode(body)
    except UNREADABLE:
        return {}
    if isinstance(document, list) and document:
        document = document[0]
    error = document.get("error") if isinstance(document, dict) else None
    return error if isinstance(error, dict) else {}


def _code(told: dict[str, Any], status: int) -> str:
    """OpenAI's `code`, Google's `status`, Anthropic's `type`: the first that there is."""
    for name in ("code", "status", "type"):
        value = told.get(name)
        if isinstance(value, str) and value:
            return value.lower()
    return f"provider_{status}"
