"""API keys: one's own under `/api/me/api-keys`, everyone's under `/api/api-keys`."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from access import callers, queries, services
from access.api import serializers
from access.api.views import read
from access.models import ApiKey
from access.permissions import Permission
from access.refusals import NotAllowed
from access.rules import SIGNED_IN, ApiRules


class AllKeys(APIView):
    """The keys of everyone. A new one belongs to the caller (with a key: to that key's owner)."""

    rules: ApiRules = {"GET": Permission.API_KEYS_MANAGE, "POST": Permission.API_KEYS_MANAGE}

    def reachable(self, request: Request) -> QuerySet[ApiKey]:
        return queries.all_keys()

    @extend_schema(responses=serializers.KeyList)
    def get(self, request: Request) -> Response:
        """List keys, newest first. Only how a key starts is shown."""
        keys = list(self.reachable(request))
        return Response(serializers.KeyList({"api_keys": keys, "total": len(keys)}).data)

    @extend_schema(request=serializers.NewKey, responses={201: serializers.MintedKeyAnswer})
    def post(self, request: Request) -> Response:
        """Mint a key. `key` is in this answer and nowhere else. It can do no more than its owner and its minter."""
        key, text = services.mint_api_key(
            owner=callers.person_of(request),
            actor=callers.actor_of(request),
            within=callers.grantable_by(request),
            **_allowed(request, read(serializers.NewKey, request)),
        )
        return Response(serializers.MintedKeyAnswer(key, context={"text": text}).data, status=201)


class AnyKey(APIView):
    """One key of anyone."""

    rules: ApiRules = dict.fromkeys(("GET", "PUT", "PATCH", "DELETE"), Permission.API_KEYS_MANAGE)

    def reachable(self, request: Request) -> QuerySet[ApiKey]:
        return queries.all_keys()

    @extend_schema(responses=serializers.KeyAnswer)
    def get(self, request: Request, pk: int) -> Response:
        """One key, without its secret."""
        return Response(serializers.KeyAnswer(self._key(request, pk)).data)

    @extend_schema(request=serializers.KeyChange, responses=serializers.KeyAnswer)
    def put(self, request: Request, pk: int) -> Response:
        """Change what is given: name, expiry, permissions, models, limits, whether enabled."""
        key = self._key(request, pk)
        services.update_api_key(
            key,
            actor=callers.actor_of(request),
            within=callers.grantable_by(request),
            **_allowed(request, read(serializers.KeyChange, request), key),
        )
        return Response(serializers.KeyAnswer(self._key(request, pk)).data)

    @extend_schema(request=serializers.KeyChange, responses=serializers.KeyAnswer)
    def patch(self, request: Request, pk: int) -> Response:
        """The same as PUT."""
        return self.put(request, pk)

    @extend_schema(responses={204: None})
    def delete(self, request: Request, pk: int) -> Response:
        """Revoke a key: refused from the next request on."""
        services.revoke_api_key(self._key(request, pk), actor=callers.actor_of(request))
        return Response(status=204)

    def _key(self, request: Request, pk: int) -> ApiKey:
        return get_object_or_404(self.reachable(request), pk=pk)


class MyKeys(AllKeys):
    """One's own keys."""

    rules = {"GET": SIGNED_IN, "POST": SIGNED_IN}

    def reachable(self, request: Request) -> QuerySet[ApiKey]:
        return queries.keys_of(callers.person_of(request))


class MyKey(AnyKey):
    """One of one's own keys."""

    rules = dict.fromkeys(("GET", "PUT", "PATCH", "DELETE"), SIGNED_IN)

    def reachable(self, request: Request) -> QuerySet[ApiKey]:
        return queries.keys_of(callers.person_of(request))


def _allowed(request: Request, values: dict[str, Any], key: ApiKey | None = None) -> dict[str, Any]:
    """The values, if this caller may set them. Nobody lifts the limits that somebody has set them.

    Raises: NotAllowed.
    """
    if "limits" in values:
        if Permission.API_KEYS_MANAGE not in callers.granted_to(request):
            raise NotAllowed(_("Limits are set by who may manage everyone's API keys."), field="limits")
        if key is not None and request.auth == key:
            raise NotAllowed(_("A key may not change its own limits."), field="limits")
    return values
