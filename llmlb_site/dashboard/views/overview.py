"""The first page: the state of the fleet at a glance, and what a newcomer does first."""

from __future__ import annotations

import re
from typing import Any, Final

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect
from django.views.decorators.http import require_safe

from access.callers import person_of
from access.models import ApiKey
from access.permissions import Permission, Role
from access.rules import page
from history.models import RequestRecord
from llmlb_site.dashboard import fleet, traffic
from llmlb_site.dashboard.views.live import render_live
from llmlb_site.lib import health
from models_catalog.queries import known_of
from nodes.capabilities import TEXT
from nodes.models import NodeModel

# An id is whatever a node says, and stands in a command that people copy: it must not end the quotes it is in.
_PLAIN: Final = re.compile(r"[A-Za-z0-9._:/@+-]+")


@page(Role.VIEWER)
@require_safe
def overview(request: HttpRequest) -> HttpResponse:
    may_read_history = person_of(request).may(Permission.LOGS_READ)
    context = {
        "fleet": fleet.fleet_summary(),
        "tiles": fleet.tiles(),
        "excluded": fleet.excluded_models(),
        "traffic": traffic.last_hour(),
        "failures": traffic.recent_failures() if may_read_history else [],
        "may_read_history": may_read_history,
        "failing_parts": health.failing(),
        **_first_steps(request),
    }
    return render_live(request, "dashboard/overview/page.html", "dashboard/overview/live.html", context)


@page(Role.VIEWER)
@require_safe
def dashboard(request: HttpRequest) -> HttpResponseRedirect:
    """Where upstream's dashboard lives."""
    return redirect("overview")


def _first_steps(request: HttpRequest) -> dict[str, Any]:
    """What is still to do before the first answer, and a command that tries it."""
    return {
        "has_keys": ApiKey.objects.filter(revoked_at=None).exists(),
        "has_requests": RequestRecord.objects.exists(),
        "api_url": request.build_absolute_uri("/v1/chat/completions"),
        "example_model": _example_model(),
    }


def _example_model() -> str:
    rows = NodeModel.objects.filter(excluded_at=None)[:100]
    return next((row.model_id for row in rows if _PLAIN.fullmatch(row.model_id) and _can_talk(row)), "MODEL")


def _can_talk(row: NodeModel) -> bool:
    return TEXT not in known_of(row).cannot
