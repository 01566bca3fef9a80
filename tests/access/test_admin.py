"""People and keys in Django's admin: the same rules as everywhere, because the same services write."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.messages import get_messages
from django.test import Client

from access import services
from access.admin import UserAdmin
from access.models import ApiKey, AuditEvent, SignInToken, User
from tests.conftest import PASSWORD, MintKey

KEYS = "/admin/access/apikey/"
USERS = "/admin/access/user/"


@pytest.fixture
def hanas(hana: User, signed_in: Callable[[User], Client]) -> Client:
    return signed_in(hana)


def secret_on(answer: Any) -> str:
    assert "no-store" in answer["Cache-Control"]
    found = re.search(r'id="secret"[^>]*>([^<]+)<', answer.content.decode())
    assert found is not None
    return found[1]


def said(answer: Any) -> str:
    return " ".join(str(message) for message in get_messages(answer.wsgi_request))


def test_every_list_and_page_opens(hanas: Client, hana: User, mint_key: MintKey) -> None:
    key, _ = mint_key(hana)
    services.sign_in(username="hana", password=PASSWORD, ip="192.0.2.1")
    pages = {
        KEYS: key.pk,
        USERS: hana.pk,
        "/admin/access/signintoken/": SignInToken.objects.get().pk,
        "/admin/access/auditevent/": AuditEvent.objects.all()[0].pk,
    }
    for path, pk in pages.items():
        assert hanas.get(path, {"q": "ha"}).status_code == 200
        assert hanas.get(f"{path}{pk}/change/").status_code == 200
    for state in ("active", "disabled", "expired", "revoked"):
        assert hanas.get(KEYS, {"state": state}).status_code == 200
    assert "auth/group" not in hanas.get("/admin/").content.decode()


def test_a_list_costs_the_same_however_long_it_is(
    hanas: Client, hana: User, mint_key: MintKey, django_assert_max_num_queries: Any
) -> None:
    for _ in range(20):
        mint_key(hana)

    with django_assert_max_num_queries(9):
        hanas.get(KEYS)


def test_a_key_minted_here_is_shown_once_and_works(hanas: Client, ken: User, with_key: Callable[[str], Client]) -> None:
    values = {"name": "ci", "owner": ken.pk, "permissions": ["endpoints.read"], "allowed_models": "a\nb"}

    answer = hanas.post(f"{KEYS}add/", values)

    text = secret_on(answer)
    assert with_key(text).get("/api/schema").status_code == 200
    key = ApiKey.objects.get()
    assert (key.owner, key.allowed_models) == (ken, ["a", "b"])
    assert AuditEvent.objects.filter(action="key.mint", actor="hana").exists()
    shown = hanas.get(f"{KEYS}{key.pk}/change/").content.decode()
    assert text not in shown
    assert "digest" not in shown


def test_a_refusal_is_told_and_nothing_is_made(hanas: Client, ken: User) -> None:
    values = {"name": "ci", "owner": ken.pk, "permissions": ["users.manage"]}

    answer = hanas.post(f"{KEYS}add/", values)

    assert answer.status_code == 302
    assert "users.manage" in said(answer)
    assert not ApiKey.objects.exists()


def test_a_key_is_changed_but_never_deleted_nor_given_away(
    hanas: Client, hana: User, ken: User, mint_key: MintKey
) -> None:
    key, _ = mint_key(hana)
    values = {"name": "new", "owner": ken.pk, "permissions": ["logs.read"], "enabled": "on"}

    assert hanas.post(f"{KEYS}{key.pk}/change/", values).status_code == 302

    key.refresh_from_db()
    assert (key.name, key.permissions, key.owner) == ("new", ["logs.read"], hana)
    assert hanas.post(f"{KEYS}{key.pk}/delete/", {"post": "yes"}).status_code == 403


def test_revoking_asks_first(hanas: Client, hana: User, mint_key: MintKey) -> None:
    key, _ = mint_key(hana)
    action = {"action": "revoke", "_selected_action": [key.pk]}

    assert "cannot be undone" in hanas.post(KEYS, action).content.decode()
    assert ApiKey.objects.get().state == "active"
    assert "1 key revoked" in said(hanas.post(KEYS, {**action, "confirmed": "yes"}))
    assert ApiKey.objects.get().state == "revoked"
    assert "revoked" in hanas.get(f"{KEYS}{key.pk}/change/").content.decode()


def test_a_person_made_here_gets_a_password_that_is_shown_once(hanas: Client) -> None:
    text = secret_on(hanas.post(f"{USERS}add/", {"username": "mio", "role": "operator"}))

    mio = User.objects.get(username="mio")
    assert mio.check_password(text)
    assert mio.must_change_password


def test_a_person_is_changed_reset_and_signed_out(
    hanas: Client, ken: User, signed_in: Callable[[User], Client]
) -> None:
    browser = signed_in(ken)
    hanas.post(f"{USERS}{ken.pk}/change/", {"username": "ken", "role": "viewer", "is_active": "on"})
    ken.refresh_from_db()
    assert ken.role == "viewer"
    assert browser.get("/api/auth/me").status_code == 401

    text = secret_on(hanas.post(USERS, {"action": "reset_password", "_selected_action": [ken.pk]}))
    ken.refresh_from_db()
    assert ken.check_password(text)

    browser = signed_in(ken)
    hanas.post(USERS, {"action": "sign_out_everywhere", "_selected_action": [ken.pk]})
    assert browser.get("/api/auth/me").status_code == 401


def test_deleting_takes_the_keys_along_but_never_the_last_administrator(
    hanas: Client, hana: User, ken: User, mint_key: MintKey
) -> None:
    mint_key(ken)
    services.sign_in(username="ken", password=PASSWORD, ip="192.0.2.1")

    assert hanas.post(f"{USERS}{ken.pk}/delete/", {"post": "yes"}).status_code == 302
    assert not User.objects.filter(pk=ken.pk).exists()
    for answer in (
        hanas.post(f"{USERS}{hana.pk}/delete/", {"post": "yes"}),
        hanas.post(USERS, {"action": "delete_selected", "_selected_action": [hana.pk], "post": "yes"}),
        hanas.post(f"{USERS}{hana.pk}/change/", {"username": "hana", "role": "viewer", "is_active": "on"}),
    ):
        assert answer.status_code == 302
        assert "last active administrator" in said(answer)
    hana.refresh_from_db()
    assert hana.role == "administrator"


def test_tokens_are_revoked_here(hanas: Client, ken: User, with_key: Callable[[str], Client]) -> None:
    token, text = services.sign_in(username="ken", password=PASSWORD, ip="192.0.2.1")

    hanas.post("/admin/access/signintoken/", {"action": "revoke", "_selected_action": [token.pk]})

    assert with_key(text).get("/api/auth/me").status_code == 401


def test_operators_look_and_change_nothing_of_this(ken: User, hana: User, signed_in: Callable[[User], Client]) -> None:
    browser = signed_in(ken)

    assert browser.get(USERS).status_code == 200
    assert browser.get(f"{USERS}{hana.pk}/change/").status_code == 200
    assert browser.get(f"{USERS}add/").status_code == 403
    assert browser.get(f"{KEYS}add/").status_code == 403
    assert browser.post(f"{USERS}{hana.pk}/change/", {"username": "hana", "role": "viewer"}).status_code == 403
    assert browser.post(f"{USERS}{hana.pk}/delete/", {"post": "yes"}).status_code == 403
    browser.post(USERS, {"action": "reset_password", "_selected_action": [hana.pk]})
    hana.refresh_from_db()
    assert hana.check_password(PASSWORD)


def test_viewers_have_no_part_in_the_admin(yui: User, signed_in: Callable[[User], Client]) -> None:
    assert signed_in(yui).get("/admin/").status_code == 403


def test_operators_run_the_fleet_and_read_no_bodies(ken: User, hana: User) -> None:
    for may in ("nodes.add_node", "nodes.change_node", "nodes.delete_node", "history.view_requestrecord"):
        assert ken.has_perm(may)
        assert hana.has_perm(may)
    for may_not in (
        "access.change_user",
        "access.add_apikey",
        "history.view_payload",
        "history.view_requestpayload",
        "history.delete_requestrecord",
        "auth.add_group",
    ):
        assert not ken.has_perm(may_not)
        assert hana.has_perm(may_not)
    assert ken.has_module_perms("nodes")
    ken.is_active = False
    assert not ken.has_perm("nodes.view_node")


def test_the_digest_is_in_no_form() -> None:
    for model in (ApiKey, SignInToken):
        model_admin = admin.site.get_model_admin(model)
        shown = {*model_admin.list_display, *model_admin.readonly_fields, *(model_admin.fields or ())}
        assert not shown & {"digest", "password"}
    assert isinstance(admin.site.get_model_admin(User), UserAdmin)
