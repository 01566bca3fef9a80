"""Behind a proxy that ends TLS: it says with which scheme the client came, and is believed if it is a trusted one."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.deprecation import MiddlewareMixin

from llmlb_site.lib.addresses import is_trusted


class ForwardedSchemeMiddleware(MiddlewareMixin):
    """Takes `X-Forwarded-Proto` (settings.SECURE_PROXY_SSL_HEADER) away from whoever is not in LLMLB_TRUSTED_PROXIES.

    Cookies that were asked for by https are Secure: a browser never sends them by plain http again.
    """

    def process_request(self, request: HttpRequest) -> None:
        if not is_trusted(request.META.get("REMOTE_ADDR") or "", settings.LLMLB.trusted_proxies):
            request.META.pop(settings.SECURE_PROXY_SSL_HEADER[0], None)

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        if request.is_secure():
            for cookie in response.cookies.values():
                cookie["secure"] = True
        return response
