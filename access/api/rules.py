"""The one permission class of `/api/*`: a view's `rules` say who may, and what they do not name is denied."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rest_framework.exceptions import MethodNotAllowed
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from access import callers
from access.api.errors import ApiError
from access.models import User
from access.permissions import Permission
from access.rules import Everyone, MethodRule, SignedInPerson

if TYPE_CHECKING:  # DRF's views import this module
    from rest_framework.views import APIView


class DeclaredRule(BasePermission):
    """Lets a request through if `view.rules` says so for its method.

    A view that a person may use before they have changed a given password says `before_password_change = True`.
    """

    def has_permission(self, request: Request, view: APIView) -> bool:
        rule = rule_for(view, request.method or "")
        if rule is None:
            raise _not_served(request, view)
        if not isinstance(rule, Everyone):
            _require_known(request, view)
            _require_allowed(request, rule)
        return True


def rule_for(view: Any, method: str) -> MethodRule | None:
    """What the view declares for a method; HEAD is GET without a body."""
    rules = getattr(view, "rules", {})
    rule: MethodRule | None = rules.get("GET" if method == "HEAD" else method)
    return rule


def _not_served(request: Request, view: APIView) -> Exception:
    method = request.method or ""
    if method == "OPTIONS" or not hasattr(view, method.lower()):
        return MethodNotAllowed(method)
    return ApiError(403, "permission_denied", "No rule allows this.")


def _require_known(request: Request, view: APIView) -> None:
    user = request.user
    if not isinstance(user, User):
        raise ApiError(401, "authentication_required", "An API key, a token or a session is required.")
    must_change = user.must_change_password and not callers.is_key(request)
    if must_change and not getattr(view, "before_password_change", False):
        raise ApiError(403, "password_change_required", "The password must be changed before anything else.")


def _require_allowed(request: Request, rule: MethodRule) -> None:
    if isinstance(rule, SignedInPerson) and callers.is_key(request):
        raise ApiError(403, "sign_in_required", "This is for people who are signed in, not for API keys.")
    if isinstance(rule, Permission) and rule not in callers.granted_to(request):
        raise ApiError(403, "insufficient_permission", f"Missing required permission: {rule.value}")
