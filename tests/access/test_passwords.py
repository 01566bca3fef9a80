"""Changing a password, and what someone with a given password can do: nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.hashers import identify_hasher
from django.test import Client, override_settings

from access import services
from access.audit import SYSTEM
from access.models import User
from tests.access.walk import every_url
from tests.conftest import PASSWORD, MintKey

CHANGE = "/api/auth/change-password"
NEW = "three green umbrellas"


def change(browser: Client, current: str = PASSWORD, new: str = NEW) -> Any:
    values = {"current_password": current, "new_password": new}
    return browser.put(CHANGE, values, content_type="application/json")


@pytest.fixture
def newcomer(hana: User) -> User:
    """Someone whose password was given to them."""
    user, password = services.create_user(username="newcomer", role="operator", actor=SYSTEM)
    assert len(password) == 16
    return user


def test_a_change_needs_the_current_password(yui: User, signed_in: Callable[[User], Client]) -> None:
    browser = signed_in(yui)

    wrong = change(browser, "not it")
    assert wrong.status_code == 400
    assert "current_password" in wrong.json()["error"]["fields"]
    assert change(browser).status_code == 204
    yui.refresh_from_db()
    assert yui.check_password(NEW)


def test_guessing_the_current_one_is_stopped(yui: User, signed_in: Callable[[User], Client]) -> None:
    browser = signed_in(yui)
    for _ in range(10):
        assert change(browser, "a guess").status_code == 400

    assert change(browser).status_code == 429


@pytest.mark.parametrize("new", ["short", "password123", "", PASSWORD])
def test_a_weak_or_old_one_is_refused(yui: User, signed_in: Callable[[User], Client], new: str) -> None:
    answer = change(signed_in(yui), new=new)

    assert answer.status_code == 400
    assert "new_password" in answer.json()["error"]["fields"]


def test_without_the_current_one_in_the_body_it_is_refused(yui: User, signed_in: Callable[[User], Client]) -> None:
    answer = signed_in(yui).put(CHANGE, {"new_password": NEW}, content_type="application/json")

    assert answer.status_code == 400
    assert "current_password" in answer.json()["error"]["fields"]


def test_a_change_ends_the_other_sessions_and_tokens(
    yui: User, signed_in: Callable[[User], Client], with_key: Callable[[str], Client]
) -> None:
    here, elsewhere = signed_in(yui), signed_in(yui)
    token = services.sign_in(username="yui", password=PASSWORD, ip="192.0.2.1")[1]

    assert change(here).status_code == 204

    assert here.get("/api/auth/me").status_code == 200
    assert elsewhere.get("/api/auth/me").status_code == 401
    assert with_key(token).get("/api/auth/me").status_code == 401


def test_a_change_by_token_keeps_that_token(yui: User, with_key: Callable[[str], Client]) -> None:
    here, other = (services.sign_in(username="yui", password=PASSWORD, ip="192.0.2.1")[1] for _ in range(2))

    assert change(with_key(here)).status_code == 204

    assert with_key(here).get("/api/auth/me").status_code == 200
    assert with_key(other).get("/api/auth/me").status_code == 401


def test_a_given_password_opens_nothing_but_its_own_change(newcomer: User, signed_in: Callable[[User], Client]) -> None:
    password = services.reset_password(newcomer, actor=SYSTEM)
    browser = signed_in(newcomer)
    token = services.sign_in(username="newcomer", password=password, ip="192.0.2.1")[1]
    open_to_all = {"/login", "/language", "/admin/login/", "/api/auth/login", "/api/version"}
    own = {"/account/password", "/logout", "/admin/logout/", "/admin/password_change/", CHANGE, "/api/auth/logout"}
    leaks = []
    for url in every_url():
        if url.path in open_to_all | own:
            continue
        if url.is_api:
            programs = [browser, Client(headers={"authorization": f"Bearer {token}"})]
            answers = [
                (method, program.generic(method, url.path, "{}", "application/json"))
                for method in url.methods
                for program in programs
            ]
            leaks += [
                f"{method} {url} {answer.status_code}"
                for method, answer in answers
                if answer.status_code != 403 or answer.json()["error"]["code"] != "password_change_required"
            ]
        else:
            answers = [(method, browser.generic(method, url.path)) for method in ("GET", "POST")]
            leaks += [
                f"{method} {url} {answer.status_code}"
                for method, answer in answers
                if (answer.status_code, answer.get("Location")) != (302, "/account/password")
            ]

    assert leaks == []


def test_after_the_change_everything_is_open(newcomer: User, signed_in: Callable[[User], Client]) -> None:
    password = services.reset_password(newcomer, actor=SYSTEM)
    browser = signed_in(newcomer)

    assert change(browser, password).status_code == 204

    assert browser.get("/api/me/api-keys").status_code == 200
    assert browser.get("/keys/").status_code == 200


def test_keys_go_on_while_their_owner_has_to_change_the_password(
    hana: User, mint_key: MintKey, with_key: Callable[[str], Client]
) -> None:
    text = mint_key(hana)[1]
    services.reset_password(hana, actor=SYSTEM)

    assert with_key(text).get("/api/users").status_code == 200


@override_settings(PASSWORD_HASHERS=["django.contrib.auth.hashers.Argon2PasswordHasher"])
def test_passwords_are_kept_as_argon2(db: None) -> None:
    user, _ = services.create_user(username="somebody", role="viewer", actor=SYSTEM)

    assert identify_hasher(user.password).algorithm == "argon2"


def test_the_first_hasher_of_the_product_is_argon2() -> None:
    from pathlib import Path

    import llmlb_site.settings

    text = Path(llmlb_site.settings.__file__).read_text()
    assert text.index("Argon2PasswordHasher") < text.index("PBKDF2PasswordHasher")
