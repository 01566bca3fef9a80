"""One API key: what it may use, and what it has used."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from access import queries, services
from access.callers import actor_of, person_of
from access.forms import LimitForm, ModelLimitForms
from access.models import ApiKey
from access.permissions import Permission, Role
from access.refusals import Refusal
from access.rules import page
from access.services.limits import NUMBERS
from llmlb_site.dashboard.limits import use_of
from llmlb_site.dashboard.views.live import render_live


@page(Role.VIEWER)
@require_http_methods(["GET", "HEAD", "POST"])
def key(request: HttpRequest, pk: int) -> HttpResponse:
    """One's own key (an administrator: anyone's). Whoever manages keys sets its limits here.

    Raises: PermissionDenied.
    """
    person = person_of(request)
    everyone = person.as_role is Role.ADMINISTRATOR
    found = get_object_or_404(queries.all_keys() if everyone else queries.keys_of(person), pk=pk)
    may_limit = person.may(Permission.API_KEYS_MANAGE) and found.revoked_at is None
    forms: dict[str, Any] = _forms(request, found) if may_limit else {}
    if request.method == "POST":
        if not may_limit:
            raise PermissionDenied
        if _saved(request, found, **forms):
            messages.success(request, _("The limits of “%s” are changed.") % found.name)
            return redirect("key", pk)
    context = {"key": found, "everyone": everyone, "may_limit": may_limit, "use": use_of(found), **forms}
    if request.method == "POST":
        return render(request, "dashboard/keys/page.html", context, status=422)
    return render_live(request, "dashboard/keys/page.html", "dashboard/keys/use.html", context)


def _forms(request: HttpRequest, found: ApiKey) -> dict[str, Any]:
    """One form for all models together, and one for each model that has a limit, and for one more."""
    now = [{name: getattr(limit, name) for name in ("model", *NUMBERS)} for limit in found.limits.all()]
    overall = next((limit for limit in now if not limit["model"]), {})
    data = request.POST if request.method == "POST" else None
    return {
        "overall": LimitForm(data, prefix="all", initial=overall),
        "models": ModelLimitForms(data, prefix="models", initial=[limit for limit in now if limit["model"]]),
    }


def _saved(request: HttpRequest, found: ApiKey, overall: LimitForm, models: Any) -> bool:
    """Whether the limits are now what the forms say; otherwise they say why not."""
    if not (overall.is_valid() and models.is_valid()):
        return False
    limits = [form.limit for form in (overall, *models) if form.limit is not None]
    try:
        services.update_api_key(found, actor=actor_of(request), limits=limits)
    except Refusal as refusal:
        overall.refuse(refusal)
        return False
    return True
