"""Every URL has a rule, and the rule is enforced: walked, not listed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory
from django.urls import path

from access.middleware import rule_of
from access.models import User
from access.permissions import Permission, Role
from access.rules import KNOWN, PUBLIC, SIGNED_IN
from tests.access.walk import METHODS, Url, every_url
from tests.conftest import MintKey

# All that anyone may do without a name here. A line more is a decision, not an accident.
PUBLIC_API = {("/api/auth/login", "POST"), ("/api/version", "GET")}
PUBLIC_PAGES = {"/login", "/language", "/admin/login/", "/admin/password_change/"}


def api_urls() -> list[Url]:
    return [url for url in every_url() if url.is_api]


def pages() -> list[Url]:
    return [url for url in every_url() if not url.is_api]


def requests_to_api() -> Iterator[tuple[Url, str]]:
    for url in api_urls():
        yield from ((url, method) for method in url.methods)


def test_the_walk_finds_what_is_there() -> None:
    paths = {url.path for url in every_url()}

    assert {"/login", "/keys/", "/api/users/99999", "/admin/", "/admin/access/apikey/"} <= paths
    assert len(api_urls()) >= 12


def test_every_api_view_has_a_rule_for_each_of_its_methods() -> None:
    kinds = (Permission, type(PUBLIC), type(SIGNED_IN), type(KNOWN))
    without = [
        f"{method} {url}"
        for url, method in requests_to_api()
        if not isinstance(url.view.cls.rules.get(method), kinds)  # type: ignore[attr-defined]
    ]

    assert without == []


def test_every_page_has_a_rule() -> None:
    assert [str(url) for url in pages() if rule_of(url.match) is None] == []


def test_only_the_listed_api_is_public() -> None:
    found = {(url.path, method) for url, method in requests_to_api() if url.view.cls.rules[method] == PUBLIC}  # type: ignore[attr-defined]

    assert found <= PUBLIC_API


@pytest.mark.django_db
def test_nobody_gets_in_without_a_name(client: Client) -> None:
    let_in = []
    for url, method in requests_to_api():
        answer = client.generic(method, url.path, "{}", "application/json")
        if answer.status_code != 401 and (url.path, method) not in PUBLIC_API:
            let_in.append(f"{method} {url} {answer.status_code}")
    for url in pages():
        for method in METHODS:
            answer = client.generic(method, url.path)
            to_sign_in = answer.status_code == 302 and answer["Location"].startswith("/login")
            if not to_sign_in and answer.status_code not in (401, 403) and url.path not in PUBLIC_PAGES:
                let_in.append(f"{method} {url} {answer.status_code}")

    assert let_in == []


def test_a_key_with_one_permission_gets_through_where_that_one_is_asked_for(
    hana: User, mint_key: MintKey, with_key: Callable[[str], Client]
) -> None:
    wrong = []
    for permission in Permission:
        program = with_key(mint_key(hana, permission)[1])
        for url, method in requests_to_api():
            rule = url.view.cls.rules[method]  # type: ignore[attr-defined]
            answer = program.generic(method, url.path, "{}", "application/json")
            passed = not (
                answer.status_code == 403
                and answer.json()["error"]["code"] in {"insufficient_permission", "sign_in_required"}
            )
            if passed != (rule in (permission, PUBLIC, KNOWN)):
                wrong.append(f"{permission.value}: {method} {url} {answer.status_code}")

    assert wrong == []


@pytest.mark.parametrize(
    ("path", "method", "permission"),
    [
        ("/api/users", "GET", Permission.USERS_MANAGE),
        ("/api/users", "POST", Permission.USERS_MANAGE),
        ("/api/users/99999", "DELETE", Permission.USERS_MANAGE),
        ("/api/api-keys", "GET", Permission.API_KEYS_MANAGE),
        ("/api/api-keys", "POST", Permission.API_KEYS_MANAGE),
        ("/api/api-keys/99999", "PUT", Permission.API_KEYS_MANAGE),
        ("/api/nodes", "GET", Permission.ENDPOINTS_READ),
        ("/api/nodes", "POST", Permission.ENDPOINTS_MANAGE),
        ("/api/endpoints", "POST", Permission.ENDPOINTS_MANAGE),
        ("/api/dashboard/request-responses", "GET", Permission.LOGS_READ),
    ],
)
def test_what_the_contract_asks_for_is_what_is_asked(
    hana: User, mint_key: MintKey, with_key: Callable[[str], Client], path: str, method: str, permission: Permission
) -> None:
    others = [other for other in Permission if other is not permission]
    answer = with_key(mint_key(hana, *others)[1]).generic(method, path, "{}", "application/json")

    assert answer.status_code == 403
    assert answer.json()["error"] == {
        "code": "insufficient_permission",
        "message": f"Missing required permission: {permission.value}",
    }


@pytest.mark.parametrize("role", Role)
def test_a_page_opens_for_its_role_and_those_above(
    hana: User, ken: User, yui: User, signed_in: Callable[[User], Client], role: Role
) -> None:
    person = {Role.ADMINISTRATOR: hana, Role.OPERATOR: ken, Role.VIEWER: yui}[role]
    browser = signed_in(person)
    wrong = []
    for url in pages():
        rule = rule_of(url.match)
        assert rule is not None
        refused = browser.get(url.path).status_code == 403
        if rule.role is not None and refused and role.includes(rule.role) and not url.path.startswith("/admin/"):
            wrong.append(f"{url} is closed to {role}")
        if rule.role is not None and not refused and not role.includes(rule.role) and url.path not in PUBLIC_PAGES:
            wrong.append(f"{url} is open to {role}")

    assert wrong == []


def forgotten(request: HttpRequest) -> HttpResponse:
    return HttpResponse("never seen")


class Overriding:
    """A URL configuration with one page that nobody gave a rule."""

    urlpatterns = [path("forgotten", forgotten)]
    handler403 = staticmethod(lambda request, exception: HttpResponse(status=403))


@pytest.mark.urls.with_args(Overriding)
def test_a_page_without_a_rule_is_for_nobody(hana: User, signed_in: Callable[[User], Client]) -> None:
    assert signed_in(hana).get("/forgotten").status_code == 403


def test_an_api_view_without_a_rule_is_for_nobody(hana: User) -> None:
    from rest_framework.test import force_authenticate
    from rest_framework.views import APIView

    class Forgotten(APIView):
        def get(self, request: HttpRequest) -> HttpResponse:
            return HttpResponse("never seen")

    request = RequestFactory().get("/")
    force_authenticate(request, hana)

    assert Forgotten.as_view()(request).status_code == 403
