"""The history's pages: the list with its filters, one request, the download."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.utils.cache import patch_vary_headers
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from access.callers import address_of, person_of
from access.permissions import Role
from access.rules import page
from history import queries, services
from history.detail import BodiesView, masked_view, revealed_view
from history.export import export
from history.forms import FilterForm
from history.models import RequestRecord
from llmlb_site.lib.crypto import DecryptionError
from nodes.models import Node


@page(Role.OPERATOR)
@require_safe
def history(request: HttpRequest) -> HttpResponse:
    """Requests, newest first. What is typed into the address bar works like what is chosen in the form."""
    form = FilterForm(request.GET)
    filters = form.filters()
    shown = queries.find_page(filters, number=_page_number(request), per_page=form.size)
    context = {
        "form": form,
        "shown": shown,
        "query": _query(request, form),
        "is_filtered": not filters.is_empty,
    }
    part = "HX-Request" in request.headers and "HX-History-Restore-Request" not in request.headers
    response = render(request, "history/list.html" if part else "history/page.html", context)
    patch_vary_headers(response, ["HX-Request", "HX-History-Restore-Request"])
    return response


@page(Role.OPERATOR)
@require_safe
def export_history(request: HttpRequest) -> StreamingHttpResponse:
    """What the filters leave, as CSV or JSON."""
    file_format = "json" if request.GET.get("format") == "json" else "csv"
    return export(FilterForm(request.GET).filters(), file_format)


@page(Role.OPERATOR)
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def detail(request: HttpRequest, pk: int) -> HttpResponse:
    """One request. Posting to it reveals its bodies to an administrator, and says so in the audit."""
    record = queries.get_record(pk)
    if record is None:
        raise Http404
    bodies = _reveal(request, record) if request.method == "POST" else masked_view(record)
    context = {
        "record": record,
        "bodies": bodies,
        "may_reveal": services.may_reveal(person_of(request)),
        "node_is_there": Node.objects.filter(pk=record.node_id or 0).exists(),
        "back": request.GET.urlencode(),
    }
    return render(request, "history/detail.html", context)


def _reveal(request: HttpRequest, record: RequestRecord) -> BodiesView:
    person = person_of(request)
    if not services.may_reveal(person):
        raise PermissionDenied
    try:
        return revealed_view(record, services.reveal_payload(record, person=person, ip=address_of(request) or None))
    except DecryptionError:
        messages.error(request, _("The bodies were stored under another secret key and cannot be read."))
        return masked_view(record)


def _page_number(request: HttpRequest) -> int:
    text = request.GET.get("page", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 1


def _query(request: HttpRequest, form: FilterForm) -> str:
    """The filters as they were given, without the page: what the links of the pager add to."""
    given: dict[str, Any] = {name: request.GET[name] for name in form.fields if request.GET.get(name)}
    return urlencode(given)
