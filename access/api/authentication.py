"""Who calls `/api/*`: an API key or a sign-in token as Bearer (or `X-API-Key`), or a browser's session."""

from __future__ import annotations

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework import authentication, exceptions
from rest_framework.request import Request

from access import queries, services
from access.api.errors import ApiError
from access.models import ApiKey, SignInToken, User


class BearerAuthentication(authentication.BaseAuthentication):
    """An API key (its owner becomes `request.user`, the key `request.auth`) or a sign-in token."""

    def authenticate(self, request: Request) -> tuple[User, ApiKey | SignInToken] | None:
        text = presented(request)
        if text is None:
            return None
        if token := queries.find_token(text):
            return token.user, token
        if key := queries.find_api_key(text):
            services.note_used_now(key)
            return key.owner, key
        raise ApiError(401, "invalid_credentials", "The API key or token is not valid.")

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class SessionAuthentication(authentication.SessionAuthentication):
    """A browser's session, with the CSRF check for whatever changes something."""

    def enforce_csrf(self, request: Request) -> None:
        try:
            super().enforce_csrf(request)
        except exceptions.PermissionDenied as error:
            raise ApiError(403, "csrf_failed", "The CSRF token is missing or wrong.") from error


def presented(request: Request) -> str | None:
    """The key or token that came with the request; None without one."""
    scheme, _, text = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() == "bearer" and text.strip():
        return str(text.strip())
    return request.META.get("HTTP_X_API_KEY", "").strip() or None


class BearerScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]  # the class registers itself
    """How the OpenAPI document describes `BearerAuthentication`."""

    target_class = BearerAuthentication
    name = "bearer"

    def get_security_definition(self, auto_schema: object) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "description": "An API key, or the token of POST /api/auth/login."}


class SessionScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]  # the class registers itself
    """How the OpenAPI document describes `SessionAuthentication`."""

    target_class = SessionAuthentication
    name = "session"

    def get_security_definition(self, auto_schema: object) -> dict[str, str]:
        return {
            "type": "apiKey",
            "in": "cookie",
            "name": "llmlb_session",
            "description": "A browser's session. Changing requests need the CSRF token in X-CSRFToken.",
        }
