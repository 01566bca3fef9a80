"""What a key has used of its limits: `/api/api-keys/{id}/usage`, and one's own under `/api/me`."""

from __future__ import annotations

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from access import callers, queries
from access.models import ApiKey
from access.permissions import Permission
from access.rules import SIGNED_IN, ApiRules
from llmlb_site.dashboard import limits
from llmlb_site.dashboard.api import serializers


class AnyKeyUsage(APIView):
    rules: ApiRules = {"GET": Permission.API_KEYS_MANAGE}

    def reachable(self, request: Request) -> QuerySet[ApiKey]:
        return queries.all_keys()

    @extend_schema(responses=serializers.KeyUsageAnswer)
    def get(self, request: Request, pk: int) -> Response:
        """Tokens that a key has used, and how much of each of its limits. What is not limited is left out."""
        key = get_object_or_404(self.reachable(request), pk=pk)
        return Response(limits.as_json(limits.use_of(key)))


class MyKeyUsage(AnyKeyUsage):
    """The same of one's own key."""

    rules = {"GET": SIGNED_IN}

    def reachable(self, request: Request) -> QuerySet[ApiKey]:
        return queries.keys_of(callers.person_of(request))
