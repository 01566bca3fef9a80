"""Behind a proxy that ends TLS: a trusted one is believed that it was https, and cookies are Secure then."""

from __future__ import annotations

import dataclasses
import ipaddress
from typing import Any

import pytest
from django.conf import settings
from django.test import Client

from access.models import User
from tests.conftest import PASSWORD

HTTPS = {"x-forwarded-proto": "https", "host": "llm.example.org"}


@pytest.fixture
def behind_proxy(settings: Any) -> None:
    """The test client's own address is that of a trusted proxy."""
    settings.LLMLB = dataclasses.replace(settings.LLMLB, trusted_proxies=(ipaddress.ip_network("127.0.0.0/8"),))


def sign_in(headers: dict[str, str]) -> dict[str, bool]:
    """Sign yui in with the form as a browser sends it. Returns for each cookie whether it is Secure."""
    browser = Client(enforce_csrf_checks=True, headers=headers)
    browser.get("/login")
    values = {"username": "yui", "password": PASSWORD, "csrfmiddlewaretoken": browser.cookies["llmlb_csrf"].value}
    answer = browser.post("/login", values, headers={**headers, "origin": "https://llm.example.org"})
    return (
        {name: bool(cookie["secure"]) for name, cookie in browser.cookies.items()} if answer.status_code == 302 else {}
    )


@pytest.mark.usefixtures("behind_proxy")
def test_cookies_are_secure_where_the_client_came_by_https(yui: User) -> None:
    assert sign_in(HTTPS) == {settings.SESSION_COOKIE_NAME: True, settings.CSRF_COOKIE_NAME: True}


@pytest.mark.usefixtures("behind_proxy")
def test_a_trusted_proxy_that_says_http_is_believed_too(yui: User) -> None:
    answer = Client(headers={"x-forwarded-proto": "http"}).get("/login")

    assert not answer.cookies[settings.CSRF_COOKIE_NAME]["secure"]


def test_anyone_else_may_say_what_they_like(yui: User) -> None:
    assert not Client(headers=HTTPS).get("/login").cookies[settings.CSRF_COOKIE_NAME]["secure"]
    assert sign_in(HTTPS) == {}  # a form from an https page, to a server that is not
