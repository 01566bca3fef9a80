"""What a node is asked to fetch or to delete, how far it is, and its own log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from access.callers import actor_of, person_of
from access.forms import RefusableForm
from access.permissions import Permission, Role
from access.refusals import Refusal
from access.rules import page
from llmlb_site.dashboard.forms import ModelDeleteForm, ModelDownloadForm
from llmlb_site.dashboard.views.live import render_live
from nodes import services
from nodes.downloads.engines import FETCHERS
from nodes.models import Download, Node, NodeType

SHOWN: Final = 8


def download_context(node: Node) -> dict[str, Any]:
    """What `downloads.html` shows of a node."""
    fetcher = FETCHERS.get(node.node_type)
    return {
        "can_download": fetcher is not None,
        "can_delete_models": fetcher is not None and fetcher.can_delete,
        "downloads": list(Download.objects.filter(node=node).order_by("-id")[:SHOWN]),
    }


@page(Role.VIEWER)
@require_safe
def downloads(request: HttpRequest, pk: int) -> HttpResponse:
    """The live part of a node's page that follows its downloads."""
    node = get_object_or_404(Node, pk=pk)
    return render(request, "dashboard/nodes/downloads.html", {"node": node, **download_context(node)})


@page(Role.OPERATOR)
@require_http_methods(["GET", "HEAD", "POST"])
def start_download(request: HttpRequest, pk: int) -> HttpResponse:
    node = get_object_or_404(Node, pk=pk)
    form = ModelDownloadForm(request.POST or None)
    told = _("%(node)s fetches %(model)s.")
    if _done(form, lambda: services.start_download(node_id=pk, actor=actor_of(request), **form.cleaned_data)):
        messages.success(request, told % {"node": node.name, "model": form.cleaned_data["model"]})
        return redirect("node", pk)
    context = {"form": form, "node": node}
    return render(request, "dashboard/nodes/download.html", context, status=422 if form.errors else 200)


@page(Role.OPERATOR)
@require_POST
def cancel_download(request: HttpRequest, pk: int, download: int) -> HttpResponse:
    try:
        row = services.cancel_download(node_id=pk, download_id=download, actor=actor_of(request))
        messages.success(request, _("The download of %s is cancelled.") % row.model)
    except Refusal as refusal:
        messages.error(request, str(refusal))
    return redirect("node", pk)


@page(Role.OPERATOR)
@require_http_methods(["GET", "HEAD", "POST"])
def delete_model(request: HttpRequest, pk: int) -> HttpResponse:
    node = get_object_or_404(Node, pk=pk)
    form = ModelDeleteForm(request.POST or None, names=_models_of(node))
    told = _("%(model)s is deleted on %(node)s.")
    if _done(
        form, lambda: services.delete_model(node_id=pk, model_id=form.cleaned_data["model"], actor=actor_of(request))
    ):
        messages.success(request, told % {"node": node.name, "model": form.cleaned_data["model"]})
        return redirect("node", pk)
    context = {"form": form, "node": node}
    return render(request, "dashboard/nodes/delete_model.html", context, status=422 if form.errors else 200)


@page(Role.VIEWER)
@require_safe
def logs(request: HttpRequest, pk: int) -> HttpResponse:
    """A node's own log, for who may read logs; fetched anew every few seconds while it is looked at."""
    node = get_object_or_404(Node, pk=pk)
    context: dict[str, Any] = {"node": node, "may_read": person_of(request).may(Permission.LOGS_READ)}
    if context["may_read"]:
        try:
            context["entries"] = services.read_logs(node_id=pk).entries
        except Refusal as refusal:
            context["trouble"] = str(refusal)
    return render_live(request, "dashboard/nodes/logs.html", "dashboard/nodes/log_lines.html", context)


def shows_logs(request: HttpRequest, node: Node) -> bool:
    """Whether there is a log to show, and this person may read it."""
    return node.node_type == NodeType.XLLM and person_of(request).may(Permission.LOGS_READ)


def _models_of(node: Node) -> list[str]:
    """What it could delete: what it lists, and what it has and refuses."""
    refused = [entry["model"] for entry in node.refused_models]
    return sorted({*node.models.values_list("model_id", flat=True), *refused})


def _done(form: RefusableForm, act: Callable[[], object]) -> bool:
    """Whether a valid form was sent and the service has done it; if not, the reasons are in the form."""
    if not form.is_valid():
        return False
    try:
        act()
    except Refusal as refusal:
        form.refuse(refusal)
        return False
    return True
