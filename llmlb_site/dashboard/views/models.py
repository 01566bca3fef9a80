"""Every model over the fleet: where it runs, where it is excluded, what else it is called."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from access.callers import actor_of
from access.permissions import Role
from access.refusals import Refusal
from access.rules import page
from llmlb_site.dashboard.forms import AliasForm, CatalogueForm, ModelFilterForm
from llmlb_site.dashboard.views.live import render_live
from models_catalog import services
from models_catalog.queries import fleet_models, provider_states
from nodes.models import NodeModel

PAGE = 100


@page(Role.VIEWER)
@require_safe
def models(request: HttpRequest) -> HttpResponse:
    filters = ModelFilterForm(request.GET)
    search = filters.cleaned_data["q"] if filters.is_valid() else ""
    shown = Paginator(fleet_models(search), PAGE).get_page(request.GET.get("page"))
    context: dict[str, Any] = {
        "filters": filters,
        "shown": shown,
        "search": search,
        "search_query": urlencode({"q": search}),
        "providers": provider_states(),
    }
    return render_live(request, "dashboard/models/page.html", "dashboard/models/list.html", context)


@page(Role.VIEWER)
@require_safe
def providers(request: HttpRequest) -> HttpResponse:
    """The part of the page about cloud providers, fetched anew when they change."""
    return render(request, "dashboard/models/providers.html", {"providers": provider_states()})


@page(Role.OPERATOR)
@require_http_methods(["GET", "HEAD", "POST"])
def add_alias(request: HttpRequest) -> HttpResponse:
    form = AliasForm(request.POST or None, initial={"model_id": request.GET.get("model", "")})
    if form.is_valid():
        try:
            made = services.add_alias(actor=actor_of(request), **form.cleaned_data)
        except Refusal as refusal:
            form.refuse(refusal)
        else:
            messages.success(
                request, _("%(alias)s now means %(model)s.") % {"alias": made.alias, "model": made.model_id}
            )
            return redirect("models")
    known = NodeModel.objects.order_by("model_id").values_list("model_id", flat=True).distinct()
    context = {"form": form, "known_models": known}
    return render(request, "dashboard/models/alias.html", context, status=422 if form.errors else 200)


@page(Role.OPERATOR)
@require_http_methods(["GET", "HEAD", "POST"])
def register_model(request: HttpRequest) -> HttpResponse:
    form = CatalogueForm(request.POST or None)
    if form.is_valid():
        try:
            made = services.register_model(actor=actor_of(request), **form.cleaned_data)
        except Refusal as refusal:
            form.refuse(refusal)
        else:
            messages.success(request, _("%s is in the catalogue.") % made.model_id)
            return redirect("models")
    return render(request, "dashboard/models/register.html", {"form": form}, status=422 if form.errors else 200)


@page(Role.OPERATOR)
@require_POST
def remove_alias(request: HttpRequest) -> HttpResponse:
    alias = request.POST.get("alias", "")
    try:
        services.remove_alias(alias=alias, actor=actor_of(request))
    except Refusal as refusal:
        messages.error(request, str(refusal))
    else:
        messages.success(request, _("The alias %s is gone.") % alias)
    return redirect("models")


@page(Role.OPERATOR)
@require_POST
def remove_model(request: HttpRequest) -> HttpResponse:
    model_id = request.POST.get("model_id", "")
    try:
        services.remove_model(model_id=model_id, actor=actor_of(request))
    except Refusal as refusal:
        messages.error(request, str(refusal))
    else:
        messages.success(request, _("%s is no longer in the catalogue. Nodes that have it keep it.") % model_id)
    return redirect("models")
