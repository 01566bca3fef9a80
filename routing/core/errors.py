"""Why a request is refused or fails, as the client will read it.

    Refusal                    answered by the gateway itself, with a status, a code and a message
    NodeFault                  a node did not do what its API promises: retried elsewhere, excludes the model there
      ConnectFault             no connection could be made
      SendFault                the connection broke before the answer's head
      TimeoutFault             no byte for too long
      MalformedFault           not HTTP, or a body that is not what the API promises
      BrokenFault              the answer stopped before its end

A node's well-formed 5xx is a fault too, but it has an answer to pass on: see `gateway/attempt.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

INVALID: Final = "invalid_request_error"
UNAVAILABLE: Final = "service_unavailable"


class Refusal(Exception):
    """An answer of the gateway's own. `headers` are sent with it, `extra` stands beside the code in the error."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        type: str = INVALID,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.type = type
        self.param = param
        self.headers = headers or {}
        self.extra = extra or {}


# --- the refusals, in the order in which a request meets them (contract, section 6) ---------------------------------


def unknown_path(method: str, path: str) -> Refusal:
    return Refusal(404, "unknown_url", f"Unknown request URL: {method} {path}. See /v1/models and the documentation.")


def method_not_allowed(method: str, path: str, allowed: str) -> Refusal:
    message = f"{path} does not accept {method}; use {allowed}."
    return Refusal(405, "method_not_allowed", message, headers={"Allow": allowed})


def key_missing() -> Refusal:
    message = "No API key was given. Send it as 'Authorization: Bearer sk_…' or as 'X-API-Key'."
    return Refusal(401, "missing_api_key", message, type="authentication_error", headers={"WWW-Authenticate": "Bearer"})


def key_invalid() -> Refusal:
    """One text for unknown, expired, revoked and disabled: which one it was is nobody's business but the owner's."""
    message = "The API key is not valid."
    return Refusal(401, "invalid_api_key", message, type="authentication_error", headers={"WWW-Authenticate": "Bearer"})


def permission_missing(permission: str) -> Refusal:
    message = f"Missing required permission: {permission}"
    return Refusal(403, "insufficient_permission", message, type="permission_error")


def body_too_large(limit: int) -> Refusal:
    return Refusal(413, "request_too_large", f"The request body is larger than {limit} bytes.")


def body_invalid(message: str) -> Refusal:
    return Refusal(400, "invalid_json", message)


def form_invalid(message: str) -> Refusal:
    return Refusal(400, "invalid_form", message)


def media_type_wrong(path: str, wanted: str) -> Refusal:
    return Refusal(415, "unsupported_media_type", f"{path} takes Content-Type: {wanted}.")


def upload_not_kept() -> Refusal:
    message = "The upload could not be stored. Try again later."
    return Refusal(503, "upload_not_stored", message, type=UNAVAILABLE, headers={"Retry-After": "30"})


def parameter_invalid(param: str, message: str, code: str = "invalid_parameter") -> Refusal:
    return Refusal(400, code, message, param=param)


def model_missing() -> Refusal:
    message = "You must provide a model: 'model' must be a non-empty string."
    return Refusal(400, "model_required", message, param="model")


def model_forbidden(model: str) -> Refusal:
    message = f"This API key may not use the model '{model}'."
    return Refusal(403, "model_not_allowed", message, type="permission_error", param="model")


def over_limit(type: str, message: str, retry_after: int) -> Refusal:
    """A limit per minute, or of requests at once; `type` says of what, as OpenAI does. `retry_after`: milliseconds."""
    return Refusal(429, "rate_limit_exceeded", message, type=type, headers=_retry_headers(retry_after))


def budget_used_up(message: str, retry_after: int) -> Refusal:
    """Trying again at once, as clients do after a 429, is of no use: so it has a code of its own, as at OpenAI."""
    type = "insufficient_quota"
    return Refusal(429, type, message, type=type, headers=_retry_headers(retry_after))


def no_nodes() -> Refusal:
    return Refusal(503, "no_nodes_available", "No node is online.", type=UNAVAILABLE, headers={"Retry-After": "5"})


def model_unknown(model: str) -> Refusal:
    return Refusal(404, "model_not_found", f"The model '{model}' does not exist", param="model")


def no_capable_node(model: str) -> Refusal:
    message = f"No available nodes support model: {model}"
    return Refusal(503, "no_capable_nodes", message, type=UNAVAILABLE, param="model", headers={"Retry-After": "5"})


def capability_mismatch(model: str, phrase: str) -> Refusal:
    message = f"Model '{model}' does not support {phrase}"
    return Refusal(400, "model_capability_mismatch", message, param="model")


def responses_not_supported(why: str) -> Refusal:
    message = f"No node that serves this model has the Responses API, and {why}."
    return Refusal(501, "responses_not_supported", message)


def response_unknown(response_id: str) -> Refusal:
    """One text for what never was, is no longer kept, or is another owner's."""
    return Refusal(404, "response_not_found", f"Response with id '{response_id}' not found.", param="response_id")


def previous_response_unknown(response_id: str) -> Refusal:
    message = f"Previous response with id '{response_id}' not found."
    return Refusal(404, "previous_response_not_found", message, param="previous_response_id")


def queue_full(limit: int, retry_after: int, headers: Mapping[str, str]) -> Refusal:
    return Refusal(
        429,
        "queue_full",
        f"Every capable node is busy and {limit} requests are already waiting.",
        type="queue_full",
        headers={"Retry-After": str(retry_after), **headers},
        extra={"retry_after": retry_after},
    )


def queue_timeout(waited: float, headers: Mapping[str, str]) -> Refusal:
    return Refusal(
        504,
        "queue_timeout",
        f"No capable node became free within {waited:.0f} s.",
        type="queue_timeout",
        headers=headers,
        extra={"waited_secs": round(waited)},
    )


def node_timeout(attempts: int) -> Refusal:
    message = f"The node did not answer in time ({_tries(attempts)})."
    return Refusal(504, "node_timeout", message, type="api_error")


def node_connection_error(attempts: int) -> Refusal:
    message = f"The connection to the node failed ({_tries(attempts)})."
    return Refusal(502, "node_connection_error", message, type="api_error")


def internal_error() -> Refusal:
    return Refusal(500, "internal_error", "The gateway failed on this request. It has been logged.", type="api_error")


def stopping() -> Refusal:
    message = "The gateway is stopping, and cannot wait for this request any longer. Try again."
    return Refusal(503, "gateway_stopping", message, type=UNAVAILABLE, headers={"Retry-After": "1"})


def _retry_headers(milliseconds: int) -> Mapping[str, str]:
    """The seconds of RFC 9110, 10.2.3, rounded up; and the milliseconds, which OpenAI's SDKs prefer."""
    return {"Retry-After": str(-(-milliseconds // 1000)), "Retry-After-Ms": str(milliseconds)}


def _tries(attempts: int) -> str:
    return "1 attempt" if attempts == 1 else f"{attempts} attempts"
