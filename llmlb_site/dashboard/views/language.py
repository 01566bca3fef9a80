"""The language switch: anyone may use it, before signing in too."""

from __future__ import annotations

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.views.decorators.http import require_POST
from django.views.i18n import set_language

from access.rules import public


@public
@require_POST
def language(request: HttpRequest) -> HttpResponseBase:
    return set_language(request)
