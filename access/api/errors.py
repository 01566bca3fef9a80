"""Every error of `/api/*` in one shape: `{"error": {"code", "message", "fields"?}}`, in plain English."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from django.core.exceptions import PermissionDenied, RequestDataTooBig, ValidationError
from django.db import OperationalError
from django.http import Http404, JsonResponse
from rest_framework import exceptions as drf
from rest_framework.response import Response

from access.refusals import Refusal

log = logging.getLogger("llmlb.api")
Fields = dict[str, list[str]]

# DRF's own words for these classes, where they are not the ones that we promise.
_CODES: Final[dict[type[drf.APIException], str]] = {
    drf.NotAuthenticated: "authentication_required",
    drf.AuthenticationFailed: "invalid_credentials",
    drf.PermissionDenied: "permission_denied",
    drf.ParseError: "malformed_request",
    drf.NotFound: "not_found",
    drf.MethodNotAllowed: "method_not_allowed",
    drf.NotAcceptable: "not_acceptable",
    drf.UnsupportedMediaType: "unsupported_media_type",
    drf.Throttled: "too_many_requests",
}


class ApiError(drf.APIException):
    """An answer that is an error: HTTP status, code for programs, message for people, messages by field."""

    def __init__(self, status: int, code: str, message: str, fields: Fields | None = None) -> None:
        super().__init__(message, code)
        self.status_code = status
        self.code = code
        self.message = message
        self.fields = fields


def body(code: str, message: str, fields: Fields | None = None) -> dict[str, Any]:
    """The one shape of an error."""
    error: dict[str, Any] = {"code": code, "message": message}
    if fields:
        error["fields"] = fields
    return {"error": error}


def json_error(status: int, code: str, message: str) -> JsonResponse:
    """The same shape where DRF is not in the way: middleware, and handlers of unknown paths under /api/."""
    response = JsonResponse(body(code, message), status=status)
    if status == 401:
        response["WWW-Authenticate"] = "Bearer"
    return response


def handle(exception: Exception, context: Mapping[str, Any]) -> Response:
    """DRF's EXCEPTION_HANDLER: whatever happened, as an answer that tells the caller what to do and nothing inside."""
    error = _as_api_error(exception)
    response = Response(body(error.code, error.message, error.fields), status=error.status_code)
    if error.status_code == 401:
        response["WWW-Authenticate"] = "Bearer"
    wait = getattr(exception, "wait", None) or getattr(exception, "retry_after", None)
    if wait:
        response["Retry-After"] = str(int(wait))
    return response


def _as_api_error(exception: Exception) -> ApiError:
    match exception:
        case ApiError():
            return exception
        case Refusal():
            return from_refusal(exception)
        case drf.ValidationError():
            return _invalid(dict(_flatten(exception.detail)))
        case ValidationError():
            return _invalid(_django_fields(exception))
        case drf.APIException():
            return ApiError(exception.status_code, _CODES.get(type(exception), "error"), str(exception.detail))
        case Http404():
            return ApiError(404, "not_found", "Not found.")
        case PermissionDenied():
            return ApiError(403, "permission_denied", "You may not do this.")
        case RequestDataTooBig():
            return ApiError(413, "payload_too_large", "The request body is too large.")
        case OperationalError():
            log.error("the database did not answer: %s", type(exception).__name__)
            return ApiError(503, "database_unavailable", "The database does not answer. Try again in a moment.")
    log.error("unexpected error in the API", exc_info=exception)
    return ApiError(500, "internal_error", "Something went wrong here. The log says more.")


def from_refusal(refusal: Refusal) -> ApiError:
    message = str(refusal)
    fields = {refusal.field: [message]} if refusal.field else None
    return ApiError(refusal.status, refusal.code, message, fields)


def _invalid(fields: Fields) -> ApiError:
    name, messages = next(iter(fields.items()), ("", ["The request is not valid."]))
    message = messages[0] if name in {"", "non_field_errors"} else f"{name}: {messages[0]}"
    return ApiError(400, "validation_error", message, fields)


def _flatten(detail: Any, path: str = "") -> Iterator[tuple[str, list[str]]]:
    """DRF's nested details as `a.b` → messages."""
    if isinstance(detail, Mapping):
        for name, inner in detail.items():
            yield from _flatten(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(detail, Sequence) and not isinstance(detail, str):
        messages = [str(item) for item in detail if isinstance(item, str)]
        if messages:
            yield path or "non_field_errors", messages
        for number, item in enumerate(detail):
            if isinstance(item, Mapping):
                yield from _flatten(item, f"{path}.{number}" if path else str(number))
    else:
        yield path or "non_field_errors", [str(detail)]


def _django_fields(error: ValidationError) -> Fields:
    if hasattr(error, "error_dict"):
        return {("non_field_errors" if name == "__all__" else name): list(m) for name, m in error.message_dict.items()}
    return {"non_field_errors": list(error.messages)}
