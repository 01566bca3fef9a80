"""What people and programs see when something is refused or breaks: a page, or JSON under `/api/`. Never a stack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.utils.translation import gettext_lazy as _
from django_stubs_ext import StrPromise

from access.api.errors import json_error

TEMPLATE: Final = "errors/trouble.html"


@dataclass(frozen=True, slots=True)
class Trouble:
    """One kind of refusal: for programs a code and plain English, for people a title and what to do."""

    status: int
    code: str
    message: str
    title: StrPromise
    advice: StrPromise


BAD_REQUEST: Final = Trouble(
    400,
    "bad_request",
    "The request could not be understood.",
    _("That request could not be understood"),
    _("Go back, check what was entered, and try again."),
)
FORBIDDEN: Final = Trouble(
    403,
    "forbidden",
    "You may not do this.",
    _("You may not do this"),
    _("Your role does not include it. An administrator can change your role."),
)
CSRF: Final = Trouble(
    403,
    "csrf_failed",
    "CSRF verification failed.",
    _("This form had expired"),
    _("Nothing was changed. Go back, reload the page, and send the form again."),
)
NOT_FOUND: Final = Trouble(
    404,
    "not_found",
    "There is nothing at this address.",
    _("There is nothing at this address"),
    _("It may have been deleted, or the link is mistyped."),
)
BROKEN: Final = Trouble(
    500,
    "internal_error",
    "Something went wrong on our side.",
    _("Something went wrong on our side"),
    _("It has been logged. Try again; if it stays, the log says what happened."),
)


def handler400(request: HttpRequest, exception: Exception) -> HttpResponse:
    return answer(request, BAD_REQUEST)


def handler403(request: HttpRequest, exception: Exception) -> HttpResponse:
    return answer(request, FORBIDDEN)


def handler404(request: HttpRequest, exception: Exception) -> HttpResponse:
    return answer(request, NOT_FOUND)


def handler500(request: HttpRequest) -> HttpResponse:
    return answer(request, BROKEN)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    return answer(request, CSRF)


def answer(request: HttpRequest, trouble: Trouble) -> HttpResponse:
    """The trouble as JSON for programs, as a page for people."""
    if request.path.startswith("/api/"):
        return json_error(trouble.status, trouble.code, trouble.message)
    if trouble is BROKEN:  # what broke may be what a page asks for: session, user, database
        return HttpResponse(render_to_string(TEMPLATE, {"trouble": trouble}), status=trouble.status)
    return render(request, TEMPLATE, {"trouble": trouble}, status=trouble.status)
