"""Default deny for everything that Django answers: a view without a rule is for nobody."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import ResolverMatch, reverse
from django.utils import translation
from django.utils.deprecation import MiddlewareMixin
from rest_framework.views import APIView

from access.api.errors import json_error
from access.api.rules import DeclaredRule
from access.models import User
from access.permissions import Role
from access.rules import ATTRIBUTE, PageRule

# What the admin site has of its own and what we have instead: its forms know nothing of our rules about people.
_INSTEAD_OF_ADMINS: Final = {"admin:login": "login", "admin:password_change": "password_change"}
# All that is open to a person who has to change their password first.
_BEFORE_PASSWORD_CHANGE: Final = frozenset({"password_change", "logout", "admin:logout"})


class AccessMiddleware(MiddlewareMixin):
    """Lets a page through if its rule does. Views of `/api/*` are left to DRF, which knows keys and tokens too."""

    def process_view(
        self, request: HttpRequest, view: Callable[..., Any], args: Any, kwargs: Any
    ) -> HttpResponseBase | None:
        match = request.resolver_match
        assert match is not None
        if is_api_view(view):
            translation.activate("en")  # texts of the API are not translated
            return None
        if ours := _INSTEAD_OF_ADMINS.get(match.view_name):
            return redirect(f"{reverse(ours)}?{request.GET.urlencode()}")
        rule = rule_of(match)
        if rule is None:
            raise PermissionDenied
        return None if rule.role is None else _refusal(request, match, rule.role)

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        """What was made for one person is kept by no cache, nor for whoever goes back after they have signed out."""
        response.headers.setdefault("Cache-Control", "no-store, private")
        return response


def is_api_view(view: Callable[..., Any]) -> bool:
    """Whether DRF answers it and asks our rules first. One that asks something else is a page without a rule."""
    cls = getattr(view, "cls", None)
    return isinstance(cls, type) and issubclass(cls, APIView) and DeclaredRule in cls.permission_classes


def rule_of(match: ResolverMatch) -> PageRule | None:
    """The rule of a page. The whole of the admin site is for operators and above."""
    if "admin" in match.namespaces:
        return PageRule(Role.OPERATOR)
    rule = getattr(match.func, ATTRIBUTE, None)
    return rule if isinstance(rule, PageRule) else None


def _refusal(request: HttpRequest, match: ResolverMatch, role: Role) -> HttpResponseBase | None:
    user = request.user
    if not isinstance(user, User):
        return _to_sign_in(request)
    if user.must_change_password and match.view_name not in _BEFORE_PASSWORD_CHANGE:
        return _send(request, reverse("password_change"), 403, "password_change_required")
    if not user.as_role.includes(role):
        raise PermissionDenied
    return None


def _to_sign_in(request: HttpRequest) -> HttpResponseBase:
    back = request.get_full_path() if request.method == "GET" else ""
    if is_htmx(request):  # what htmx fetches is a part; the person is on another page
        back = _path_of(request.headers.get("HX-Current-URL", ""))
    query = f"?{urlencode({'next': back})}" if back else ""
    return _send(request, f"{reverse(settings.LOGIN_URL)}{query}", 401, "authentication_required")


def _send(request: HttpRequest, url: str, status: int, code: str) -> HttpResponseBase:
    """To another page: as a redirect, as htmx understands it, or as an error where a program asks."""
    if request.path.startswith("/api/"):
        return json_error(status, code, "Sign in, and change a given password, before anything else.")
    if is_htmx(request):
        return HttpResponse(status=204, headers={"HX-Redirect": url})
    return redirect(url)


def is_htmx(request: HttpRequest) -> bool:
    return request.headers.get("HX-Request") == "true"


def _path_of(url: str) -> str:
    parts = urlsplit(url)
    return parts.path + (f"?{parts.query}" if parts.query else "")
