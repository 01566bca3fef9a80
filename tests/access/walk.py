"""Every URL that Django answers, told from the resolver, so that no one has to remember to list a new one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from django.urls import ResolverMatch, URLPattern, URLResolver, get_resolver, resolve

from access.middleware import is_api_view

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True)
class Url:
    """One URL pattern: a path that matches it, and the view behind it."""

    path: str
    view: Callable[..., Any]
    match: ResolverMatch

    @property
    def is_api(self) -> bool:
        return is_api_view(self.view)

    @property
    def methods(self) -> list[str]:
        """What an API view implements."""
        return [method for method in METHODS if hasattr(self.view.cls, method.lower())]  # type: ignore[attr-defined]

    def __str__(self) -> str:
        return self.path


def every_url() -> list[Url]:
    return list(_walk(get_resolver(), "/"))


def _walk(resolver: URLResolver, start: str) -> Iterator[Url]:
    for pattern in resolver.url_patterns:
        path = start + _example(str(pattern.pattern))
        if isinstance(pattern, URLResolver):
            yield from _walk(pattern, path)
        elif isinstance(pattern, URLPattern):
            yield Url(path, pattern.callback, resolve(path))


def _example(route: str) -> str:
    route = re.sub(r"\(\?P<\w+>(\w+)[^)]*\)", r"\1", route)  # the admin's list of apps: the first of them
    route = re.sub(r"\(\?P<\w+>\.\*\)", "something", route)
    route = re.sub(r"<(int|path):\w+>|<slug:\w+>|<str:\w+>|<\w+>", "99999", route)
    return route.replace("^", "").replace("$", "").replace("\\Z", "")
