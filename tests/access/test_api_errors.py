"""Whatever goes wrong under /api/ is one shape, in English, and tells nothing from inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError
from django.test import Client

from access import queries
from access.models import User


@pytest.fixture
def hanas(hana: User, signed_in: Callable[[User], Client]) -> Client:
    return signed_in(hana)


def error(answer: Any) -> dict[str, Any]:
    assert answer["Content-Type"] == "application/json"
    body: dict[str, Any] = answer.json()
    assert set(body) == {"error"}
    assert {"code", "message"} <= set(body["error"]) <= {"code", "message", "fields"}
    return dict(body["error"])


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        ("{", "application/json", 400, "malformed_request"),
        (b"\xff\xfe", "application/json", 400, "malformed_request"),
        ("[" * 100_000, "application/json", 400, "malformed_request"),
        ('{"username": ' + "[" * 100_000 + "]" * 100_000 + "}", "application/json", 400, "malformed_request"),
        ("[]", "application/json", 400, "validation_error"),
        ("3", "application/json", 400, "validation_error"),
        ("null", "application/json", 400, "validation_error"),
        ('{"username": "a", "password": NaN}', "application/json", 400, "malformed_request"),
        ("", "application/json", 400, None),
        ("a=b", "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
        ("<a/>", "text/xml", 415, "unsupported_media_type"),
        ('"' + "x" * (21 * 1024 * 1024) + '"', "application/json", 413, "payload_too_large"),
    ],
    ids=["cut", "not text", "brackets", "deep", "array", "number", "null", "nan", "empty", "form", "xml", "21 MiB"],
)
def test_a_body_that_is_wrong(
    client: Client, db: None, body: Any, content_type: str, status: int, code: str | None
) -> None:
    answer = client.generic("POST", "/api/auth/login", body, content_type)

    assert answer.status_code == status
    assert code in (None, error(answer)["code"])


def test_a_method_that_is_not_served(hanas: Client) -> None:
    for method in ("DELETE", "OPTIONS", "TRACE"):
        answer = hanas.generic(method, "/api/users")
        assert answer.status_code == 405
        assert error(answer)["code"] == "method_not_allowed"
        assert "POST" in answer["Allow"]


def test_what_is_not_there(hanas: Client) -> None:
    answer = hanas.get("/api/users/99999")

    assert answer.status_code == 404
    assert error(answer) == {"code": "not_found", "message": "Not found."}


def test_an_error_is_english_whatever_the_browser_prefers(hanas: Client) -> None:
    japanese = {"accept-language": "ja"}

    answer = hanas.post("/api/users", {}, content_type="application/json", headers=japanese)
    assert error(answer)["fields"]["username"] == ["This field is required."]
    answer = hanas.post("/api/users", {"username": "x"}, content_type="application/json", headers=japanese)
    assert error(answer)["message"].isascii()


def test_a_database_that_does_not_answer_is_503(hanas: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*args: Any) -> None:
        raise OperationalError("could not connect to 10.0.0.7")

    monkeypatch.setattr(queries, "all_keys", down)
    answer = hanas.get("/api/api-keys")

    assert answer.status_code == 503
    assert error(answer)["code"] == "database_unavailable"
    assert "10.0.0.7" not in answer.content.decode()


def test_a_mistake_of_ours_is_500_and_says_nothing_of_it(
    hanas: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: Any) -> None:
        raise KeyError("inner secret")

    monkeypatch.setattr(queries, "all_keys", broken)
    answer = hanas.get("/api/api-keys")

    assert answer.status_code == 500
    assert error(answer)["code"] == "internal_error"
    assert "secret" not in answer.content.decode()
    assert "unexpected error" in caplog.text


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_a_session_needs_the_csrf_token(hana: User, method: str) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(hana)
    path = "/api/api-keys" if method == "post" else "/api/api-keys/99999"

    answer = getattr(browser, method)(path, {}, content_type="application/json")

    assert answer.status_code == 403
    assert error(answer)["code"] == "csrf_failed"
    assert browser.get("/api/api-keys").status_code == 200


def test_a_page_with_a_form_needs_the_csrf_token(hana: User) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(hana)

    for path in ("/keys/", "/users/", "/logout", "/account/password", "/login"):
        assert browser.post(path, {}).status_code == 403
