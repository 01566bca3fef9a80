"""A page and its live part: one view, one context, two templates."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.cache import patch_vary_headers


def wants_part(request: HttpRequest) -> bool:
    """Whether htmx asks for the part. Going back in the browser's history asks for the whole page."""
    return "HX-Request" in request.headers and "HX-History-Restore-Request" not in request.headers


def render_live(request: HttpRequest, page: str, part: str, context: dict[str, Any]) -> HttpResponse:
    """`part` for htmx, otherwise `page`, which includes it."""
    response = render(request, part if wants_part(request) else page, context)
    patch_vary_headers(response, ["HX-Request", "HX-History-Restore-Request"])
    return response
