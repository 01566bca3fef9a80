"""The nodes: list, one of them, and the forms that register, change and delete one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_http_methods, require_safe

from access.callers import actor_of, person_of
from access.permissions import Permission, Role
from access.refusals import Refusal
from access.rules import page
from history.models import RequestRecord
from llmlb_site.dashboard import fleet
from llmlb_site.dashboard.forms import NodeChangeForm, NodeFields, NodeFilterForm, NodeForm
from llmlb_site.dashboard.views.live import render_live, wants_part
from llmlb_site.dashboard.views.node_models import download_context, shows_logs
from nodes import services
from nodes.models import Node, PollResult

PAGE = 50
CHECKS = 60
CHECKS_LISTED = 8
REQUESTS = 10


@page(Role.VIEWER)
@require_safe
def nodes(request: HttpRequest) -> HttpResponse:
    filters = NodeFilterForm(request.GET)
    filters.is_valid()
    chosen = {name: value for name, value in filters.cleaned_data.items() if value}
    found = fleet.find_nodes(
        search=chosen.get("q", ""),
        status=chosen.get("status", ""),
        node_type=chosen.get("type", ""),
        excluded=chosen.get("excluded", False),
    )
    shown = Paginator(found, PAGE).get_page(request.GET.get("page"))
    context = {
        "filters": filters,
        "filtered": bool(chosen),
        "shown": shown,
        "rows": fleet.with_load(shown.object_list),
        "search_query": urlencode(chosen),
    }
    return render_live(request, "dashboard/nodes/page.html", "dashboard/nodes/list.html", context)


@page(Role.VIEWER)
@require_safe
def node(request: HttpRequest, pk: int) -> HttpResponse:
    found = Node.objects.filter(pk=pk).first()
    if found is None and wants_part(request):  # someone has deleted it under an open page
        return HttpResponse(status=204, headers={"HX-Redirect": reverse("nodes")})
    if found is None:
        raise Http404
    may_read_history = person_of(request).may(Permission.LOGS_READ)
    context = {"node": found, "may_read_history": may_read_history, **_state_of(found), **download_context(found)}
    context["shows_logs"] = shows_logs(request, found)
    if may_read_history:
        context["requests"] = RequestRecord.objects.filter(node_id=pk).order_by("-id")[:REQUESTS]
    return render_live(request, "dashboard/nodes/node.html", "dashboard/nodes/node_live.html", context)


def _state_of(found: Node) -> dict[str, Any]:
    models = list(found.models.order_by("model_id"))
    checks = list(PollResult.objects.filter(node=found).order_by("-id")[:CHECKS])
    return {
        "executable": [model for model in models if not model.is_excluded],
        "excluded": [model for model in models if model.is_excluded],
        "model_count": len(models),
        "in_flight": fleet.with_load([found])[0].in_flight,
        "checks": checks[:CHECKS_LISTED],
        "latencies": [check.latency_ms if check.ok else None for check in reversed(checks)],
    }


@page(Role.OPERATOR)
@require_http_methods(["GET", "HEAD", "POST"])
def add_node(request: HttpRequest) -> HttpResponse:
    form = NodeForm(request.POST or None)
    made = _done(form, lambda: services.register_node(actor=actor_of(request), **form.values()))
    if made is None:
        return render(request, "dashboard/nodes/add.html", {"form": form}, status=422 if form.errors else 200)
    number = made.models.count()
    text = ngettext(
        "%(node)s is registered with %(number)s model.", "%(node)s is registered with %(number)s models.", number
    )
    messages.success(request, text % {"node": made.name, "number": number})
    return redirect("node", made.pk)


@page(Role.OPERATOR)
@require_http_methods(["GET", "HEAD", "POST"])
def change_node(request: HttpRequest, pk: int) -> HttpResponse:
    found = get_object_or_404(Node, pk=pk)
    form = NodeChangeForm(request.POST or None, initial=NodeChangeForm.initial_of(found))
    changed = _done(form, lambda: services.update_node(node_id=pk, changes=form.values(), actor=actor_of(request)))
    if changed is None:
        context = {"form": form, "node": found}
        return render(request, "dashboard/nodes/change.html", context, status=422 if form.errors else 200)
    messages.success(request, _("%s is changed.") % changed.name)
    return redirect("node", pk)


@page(Role.OPERATOR)
@require_http_methods(["GET", "HEAD", "POST"])
def delete_node(request: HttpRequest, pk: int) -> HttpResponse:
    found = get_object_or_404(Node, pk=pk)
    if request.method != "POST":
        return render(request, "dashboard/nodes/delete.html", {"node": found})
    services.delete_node(node_id=pk, actor=actor_of(request))
    messages.success(request, _("%s is deleted. Its requests stay in the history.") % found.name)
    return redirect("nodes")


def _done(form: NodeFields, act: Callable[[], Node]) -> Node | None:
    """What the service made of a valid form; None with the reasons in the form, or where nothing was sent yet."""
    if not form.is_valid():
        return None
    try:
        return act()
    except Refusal as refusal:
        form.refuse(refusal)
    except ValidationError as error:
        for name, texts in error.message_dict.items():
            form.add_error(name if name in form.fields else None, texts)
    return None
