"""Sign-in and people. And the OpenAPI document. Keys are in `keys.py`."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

from django.conf import settings
from django.contrib.auth import logout, update_session_auth_hash
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularJSONAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer
from rest_framework.views import APIView

from access import callers, services
from access.api import serializers
from access.api.errors import ApiError
from access.api.rules import DeclaredRule
from access.models import SignInToken, User
from access.permissions import ROLE_PERMISSIONS, Permission, Role
from access.rules import KNOWN, PUBLIC, SIGNED_IN, ApiRules


def read(serializer: type[Serializer[Any]], request: Request) -> dict[str, Any]:
    """The request's body, as far as the serializer knows it. Raises: DRF's ValidationError."""
    form = serializer(data=request.data)
    form.is_valid(raise_exception=True)
    return dict(form.validated_data)


class Login(APIView):
    authentication_classes = ()
    rules: Final[ApiRules] = {"POST": PUBLIC}

    @extend_schema(request=serializers.LoginRequest, responses=serializers.LoginAnswer)
    def post(self, request: Request) -> Response:
        """Get a token for `/api/*`. It can be revoked, and dies with its user."""
        given = read(serializers.LoginRequest, request)
        token, text = services.sign_in(**given, ip=callers.address_of(request))
        answer = {"token": text, "expires_in": settings.SESSION_COOKIE_AGE, "user": token.user}
        return Response(serializers.LoginAnswer(answer).data)


class Logout(APIView):
    rules: Final[ApiRules] = {"POST": SIGNED_IN}
    before_password_change = True

    @extend_schema(request=None, responses={204: None})
    def post(self, request: Request) -> Response:
        """End this token, or this browser's session."""
        if isinstance(request.auth, SignInToken):
            services.sign_out(request.auth, actor=callers.actor_of(request))
        else:
            logout(request._request)
        return Response(status=204)


class Me(APIView):
    rules: Final[ApiRules] = {"GET": SIGNED_IN}

    @extend_schema(responses=serializers.Me)
    def get(self, request: Request) -> Response:
        """Who is signed in."""
        return Response(serializers.Me(callers.person_of(request)).data)


class ChangePassword(APIView):
    rules: Final[ApiRules] = {"PUT": SIGNED_IN}
    before_password_change = True

    @extend_schema(request=serializers.PasswordChange, responses={204: None})
    def put(self, request: Request) -> Response:
        """Change one's own password. One's other sessions and tokens end."""
        given = read(serializers.PasswordChange, request)
        token = request.auth if isinstance(request.auth, SignInToken) else None
        services.change_password(
            user := callers.person_of(request),
            current=given["current_password"],
            new=given["new_password"],
            actor=callers.actor_of(request),
            keep_token=token,
        )
        if token is None:
            update_session_auth_hash(request._request, user)
        return Response(status=204)


class Users(APIView):
    rules: Final[ApiRules] = {"GET": Permission.USERS_MANAGE, "POST": Permission.USERS_MANAGE}

    @extend_schema(responses=serializers.UserList)
    def get(self, request: Request) -> Response:
        """Every user."""
        users = list(User.objects.order_by("username"))
        return Response(serializers.UserList({"users": users, "total": len(users)}).data)

    @extend_schema(request=serializers.NewUser, responses={201: serializers.GeneratedPassword})
    def post(self, request: Request) -> Response:
        """Create a user. The generated password is in this answer and nowhere else."""
        given = read(serializers.NewUser, request)
        _guard_roles(request, given["role"])
        user, password = services.create_user(**given, actor=callers.actor_of(request))
        return Response(_with_password(user, password), status=201)


class UserDetail(APIView):
    rules: Final[ApiRules] = dict.fromkeys(("GET", "PUT", "PATCH", "DELETE"), Permission.USERS_MANAGE)

    @extend_schema(responses=serializers.UserAnswer)
    def get(self, request: Request, pk: int) -> Response:
        """One user."""
        return Response(serializers.UserAnswer(get_object_or_404(User, pk=pk)).data)

    @extend_schema(request=serializers.UserChange, responses=serializers.UserAnswer)
    def put(self, request: Request, pk: int) -> Response:
        """Change what is given: name, role, whether active. A demotion signs the user out at once."""
        given = read(serializers.UserChange, request)
        user = get_object_or_404(User, pk=pk)
        _guard_roles(request, user.role, given.get("role", ""))
        services.update_user(user, actor=callers.actor_of(request), **given)
        return Response(serializers.UserAnswer(user).data)

    @extend_schema(request=serializers.UserChange, responses=serializers.UserAnswer)
    def patch(self, request: Request, pk: int) -> Response:
        """The same as PUT."""
        return self.put(request, pk)

    @extend_schema(responses={204: None})
    def delete(self, request: Request, pk: int) -> Response:
        """Remove a user with their keys, tokens and sessions."""
        user = get_object_or_404(User, pk=pk)
        _guard_roles(request, user.role)
        services.delete_user(user, actor=callers.actor_of(request))
        return Response(status=204)


class ResetPassword(APIView):
    rules: Final[ApiRules] = {"POST": Permission.USERS_MANAGE}

    @extend_schema(request=None, responses=serializers.GeneratedPassword)
    def post(self, request: Request, pk: int) -> Response:
        """Give a user a new password, shown once, to be changed at the next sign-in."""
        user = get_object_or_404(User, pk=pk)
        _guard_roles(request, user.role)
        password = services.reset_password(user, actor=callers.actor_of(request))
        return Response(_with_password(user, password))


class Schema(SpectacularJSONAPIView):
    """The document itself tells nothing secret, but only who has a name here needs it."""

    permission_classes = (DeclaredRule,)
    rules: Final[ApiRules] = {"GET": KNOWN}

    @extend_schema(exclude=True)
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        response: Response = super().get(request, *args, **kwargs)  # type: ignore[no-untyped-call]  # untyped there
        return response


def _with_password(user: User, password: str) -> Any:
    answer = {"user": user, "generated_password": password, "must_change_password": user.must_change_password}
    return serializers.GeneratedPassword(answer).data


def _guard_roles(request: Request, *roles: str) -> None:
    """Keep a key with `users.manage` from getting at more than it may: it would sign in as whom it made or reset.

    A name that is no role is the service's to refuse.
    """
    grantable = callers.grantable_by(request)
    for role in roles:
        with suppress(ValueError):
            if not ROLE_PERMISSIONS[Role.parse(role)] <= grantable:
                raise ApiError(403, "insufficient_permission", f"Managing an {role} needs what an {role} may do.")
