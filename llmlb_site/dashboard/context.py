"""What every page's template knows: version, navigation by role, and where live hints come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.functional import SimpleLazyObject
from django.utils.translation import gettext_lazy as _
from django_stubs_ext import StrPromise

from access.permissions import Role
from llmlb_site import __version__

LIVE_PATH: Final = "/ws/dashboard"


@dataclass(frozen=True, slots=True)
class Destination:
    """One entry of the navigation, for people whose role includes `role`."""

    url_name: str
    label: StrPromise
    icon: str
    role: Role = Role.VIEWER
    apart: bool = False


@dataclass(frozen=True, slots=True)
class NavigationItem:
    href: str
    label: StrPromise
    icon: str
    apart: bool
    current: bool


DESTINATIONS: Final = (
    Destination("overview", _("Overview"), "overview"),
    Destination("nodes", _("Nodes"), "nodes"),
    Destination("models", _("Models"), "models"),
    Destination("history", _("History"), "history", Role.OPERATOR),
    Destination("keys", _("Keys"), "keys"),
    Destination("users", _("Users"), "users", Role.ADMINISTRATOR),
    Destination("admin:index", _("Admin"), "admin", Role.OPERATOR, apart=True),
)


def site(request: HttpRequest) -> dict[str, Any]:
    """Template context of every page; works for people who are not signed in, and on error pages."""
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated or user.must_change_password:
        return {"version": __version__}
    role: Role = user.as_role
    return {
        "version": __version__,
        "navigation": SimpleLazyObject(lambda: _navigation(role, request.path)),
        "is_operator": role.includes(Role.OPERATOR),
        "is_administrator": role.includes(Role.ADMINISTRATOR),
        "live_path": LIVE_PATH,
    }


def _navigation(role: Role, path: str) -> list[NavigationItem]:
    return [item for destination in DESTINATIONS if (item := _item(destination, role, path))]


def _item(destination: Destination, role: Role, path: str) -> NavigationItem | None:
    if not role.includes(destination.role):
        return None
    try:
        href = reverse(destination.url_name)
    except NoReverseMatch:
        return None
    current = path == href or (href != "/" and path.startswith(href))
    return NavigationItem(href, destination.label, destination.icon, destination.apart, current)
