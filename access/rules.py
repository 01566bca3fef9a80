"""Default deny: every URL declares who may use it, or nobody may.

A page says it with `@page(Role.VIEWER)`, a public one with `@public`. An API view says it with a class attribute
`rules = {"GET": Permission.ENDPOINTS_READ, "POST": Permission.ENDPOINTS_MANAGE}` (or `PUBLIC`, `SIGNED_IN`, `KNOWN`).
`AccessMiddleware` enforces the first kind, `access.api.rules.DeclaredRule` the second, and a test walks every URL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from access.permissions import Permission, Role

View = TypeVar("View", bound=Callable[..., Any])
ATTRIBUTE: Final = "access_rule"


@dataclass(frozen=True, slots=True)
class PageRule:
    """Who may open a page. `role` None means everyone, signed in or not."""

    role: Role | None


@dataclass(frozen=True, slots=True)
class Everyone:
    """An API view that needs no one signed in."""


@dataclass(frozen=True, slots=True)
class SignedInPerson:
    """An API view about the caller: a person's session or sign-in token, never an API key."""


@dataclass(frozen=True, slots=True)
class KnownCaller:
    """An API view for whoever has a name here: a person signed in, or any live API key."""


PUBLIC: Final = Everyone()
SIGNED_IN: Final = SignedInPerson()
KNOWN: Final = KnownCaller()

MethodRule = Permission | Everyone | SignedInPerson | KnownCaller
ApiRules = Mapping[str, MethodRule]


def page(role: Role) -> Callable[[View], View]:
    def mark(view: View) -> View:
        setattr(view, ATTRIBUTE, PageRule(role))
        return view

    return mark


def public(view: View) -> View:
    setattr(view, ATTRIBUTE, PageRule(None))
    return view
