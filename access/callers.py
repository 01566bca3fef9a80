"""Who calls, told from a request: for rules, services and the audit."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest
from rest_framework.request import Request

from access.audit import Actor
from access.models import ApiKey, User
from access.permissions import ROLE_PERMISSIONS, Permission, Role
from llmlb_site.lib.addresses import client_address


def address_of(request: HttpRequest | Request) -> str:
    """The client's address, `X-Forwarded-For` counted only from LLMLB_TRUSTED_PROXIES."""
    meta = request.META
    return client_address(
        meta.get("REMOTE_ADDR") or "", meta.get("HTTP_X_FORWARDED_FOR", ""), settings.LLMLB.trusted_proxies
    )


def person_of(request: HttpRequest | Request) -> User:
    """Who is signed in, or owns the API key that calls. Only where a rule has let them in."""
    assert isinstance(request.user, User)
    return request.user


def actor_of(request: HttpRequest | Request) -> Actor:
    """The caller as the audit keeps it."""
    key = getattr(request, "auth", None)
    ip = address_of(request) or None
    return Actor.key(key, ip) if isinstance(key, ApiKey) else Actor.user(person_of(request), ip)


def is_key(request: Request) -> bool:
    return isinstance(request.auth, ApiKey)


def granted_to(request: Request) -> frozenset[Permission]:
    """What the caller may do now, by role or by key."""
    return request.auth.effective_permissions if isinstance(request.auth, ApiKey) else person_of(request).granted


def grantable_by(request: Request) -> frozenset[Permission]:
    """The most that this caller may put into an API key.

    A person: what their role allows. A key with `api_keys.manage`: what it has itself, and what any consumer has;
    otherwise that one permission would be all of them.
    """
    return granted_to(request) | ROLE_PERMISSIONS[Role.VIEWER] if is_key(request) else granted_to(request)
