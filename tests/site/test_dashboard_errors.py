"""What is refused or breaks: a page for people, JSON for programs, never a stack."""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import patch

import pytest
from django.test import Client, RequestFactory

from access.models import User
from llmlb_site.dashboard import errors

SignIn = Callable[[User], Client]


def test_an_unknown_page(db: None) -> None:
    answer = Client().get("/no/such/page")
    assert answer.status_code == 404
    assert "There is nothing at this address" in answer.content.decode()


def test_an_unknown_path_of_the_api(db: None) -> None:
    answer = Client().get("/api/no-such-thing")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


def test_what_a_role_does_not_include(signed_in: SignIn, yui: User) -> None:
    answer = signed_in(yui).get("/nodes/add")
    assert answer.status_code == 403
    assert "An administrator can change your role." in answer.content.decode()


def test_a_bug_shows_nothing_of_itself(signed_in: SignIn, yui: User) -> None:
    browser = signed_in(yui)
    browser.raise_request_exception = False
    with patch("llmlb_site.dashboard.fleet.fleet_summary", side_effect=RuntimeError("the secret plan")):
        answer = browser.get("/")
    assert answer.status_code == 500
    assert "Something went wrong on our side" in answer.content.decode()
    assert "secret plan" not in answer.content.decode()


@pytest.mark.parametrize(
    "trouble", [errors.BAD_REQUEST, errors.FORBIDDEN, errors.CSRF, errors.NOT_FOUND, errors.BROKEN]
)
def test_programs_get_the_same_as_json(trouble: errors.Trouble) -> None:
    answer = errors.answer(RequestFactory().get("/api/nodes"), trouble)
    assert (answer.status_code, answer["Content-Type"]) == (trouble.status, "application/json")
    assert trouble.code in answer.content.decode()


def test_every_page_is_sent_with_a_strict_policy(signed_in: SignIn, hana: User) -> None:
    for path in ("/", "/nodes/", "/models/", "/login", "/nope", "/admin/"):
        policy = signed_in(hana).get(path)["Content-Security-Policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
