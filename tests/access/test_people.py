"""Users over the API: create, change, remove; the last administrator stays; keys follow their owner's role."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from access import services
from access.audit import SYSTEM
from access.models import ApiKey, AuditEvent, User
from access.permissions import Permission
from access.queries import live_principals
from access.refusals import LastAdministrator
from tests.conftest import MintKey, make_person

USERS = "/api/users"


@pytest.fixture
def hanas(hana: User, signed_in: Callable[[User], Client]) -> Client:
    return signed_in(hana)


def put(browser: Client, user: User, **values: Any) -> Any:
    return browser.put(f"{USERS}/{user.pk}", values, content_type="application/json")


def test_a_new_user_gets_a_password_that_is_shown_once(hanas: Client) -> None:
    answer = hanas.post(USERS, {"username": "mio", "role": "operator"}, content_type="application/json")

    assert answer.status_code == 201
    body = answer.json()
    assert len(body["generated_password"]) == 16
    assert body["must_change_password"] is True
    assert body["user"]["role"] == "operator"
    user = User.objects.get(username="mio")
    assert user.check_password(body["generated_password"])
    assert body["generated_password"] not in hanas.get(USERS).content.decode()
    assert body["generated_password"] not in str(list(AuditEvent.objects.values()))


@pytest.mark.parametrize(("sent", "kept"), [("admin", "administrator"), ("viewer", "viewer")])
def test_upstreams_word_for_administrator_is_accepted(hanas: Client, sent: str, kept: str) -> None:
    answer = hanas.post(USERS, {"username": "mio", "role": sent}, content_type="application/json")

    assert answer.json()["user"]["role"] == kept


@pytest.mark.parametrize(
    ("values", "status", "field"),
    [
        ({"username": "ab"}, 400, "username"),
        ({"username": "x" * 51}, 400, "username"),
        ({"username": "mio@example.org"}, 400, "username"),
        ({"username": "みお"}, 400, "username"),
        ({"username": "mio\n"}, 201, ""),  # a trailing line break is white space, and taken off
        ({"role": "viewer"}, 400, "username"),
        ({"username": "mio", "role": "root"}, 400, "role"),
        ({"username": "hana"}, 409, "username"),
        ({"username": "Hana"}, 409, "username"),  # nobody could tell the two apart
    ],
)
def test_names_and_roles_have_rules(hanas: Client, values: dict[str, str], status: int, field: str) -> None:
    answer = hanas.post(USERS, values, content_type="application/json")

    assert answer.status_code == status
    assert not field or field in answer.json()["error"]["fields"]


def test_the_last_administrator_stays(hanas: Client, hana: User, ken: User) -> None:
    for answer in (
        hanas.delete(f"{USERS}/{hana.pk}"),
        put(hanas, hana, role="operator"),
        put(hanas, hana, is_active=False),
    ):
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "last_administrator"
    hana.refresh_from_db()
    assert hana.role == "administrator"
    assert hana.is_active

    services.update_user(ken, role="administrator", is_active=False, actor=SYSTEM)
    with pytest.raises(LastAdministrator):  # one that is not active counts for nothing
        services.delete_user(hana, actor=SYSTEM)
    services.update_user(ken, is_active=True, actor=SYSTEM)
    assert hanas.delete(f"{USERS}/{hana.pk}").status_code == 204


def test_a_deleted_users_keys_and_row_are_gone(
    hanas: Client, ken: User, mint_key: MintKey, with_key: Callable[[str], Client]
) -> None:
    _, text = mint_key(ken, Permission.INFERENCE)

    assert hanas.delete(f"{USERS}/{ken.pk}").status_code == 204

    assert hanas.get(f"{USERS}/{ken.pk}").status_code == 404
    assert not ApiKey.objects.exists()
    assert with_key(text).get("/api/schema").status_code == 401


def test_a_demotion_takes_the_role_and_the_keys_with_the_next_request(
    hanas: Client, ken: User, mint_key: MintKey, with_key: Callable[[str], Client]
) -> None:
    services.update_user(ken, role="administrator", actor=SYSTEM)
    key, text = mint_key(ken, Permission.USERS_MANAGE, Permission.INFERENCE)
    assert with_key(text).get(USERS).status_code == 200

    assert put(hanas, ken, role="viewer").status_code == 200

    assert with_key(text).get(USERS).status_code == 403
    principal = next(row for row in live_principals() if row.key_id == key.pk)
    assert principal.permissions == {Permission.INFERENCE}


def test_the_keys_of_someone_not_active_are_dead_and_come_back_with_them(
    hanas: Client, ken: User, mint_key: MintKey, with_key: Callable[[str], Client]
) -> None:
    key, text = mint_key(ken, Permission.INFERENCE)
    put(hanas, ken, is_active=False)

    assert with_key(text).get("/api/schema").status_code == 401
    principal = next(row for row in live_principals() if row.key_id == key.pk)
    assert not principal.owner_active
    assert principal.permissions == frozenset()
    put(hanas, ken, is_active=True)
    assert with_key(text).get("/api/schema").status_code == 200


def test_reset_password_gives_a_new_one_once(hanas: Client, ken: User) -> None:
    answer = hanas.post(f"{USERS}/{ken.pk}/reset-password")

    assert answer.status_code == 200
    ken.refresh_from_db()
    assert ken.check_password(answer.json()["generated_password"])
    assert ken.must_change_password


def test_a_key_that_manages_users_gets_at_no_one_who_may_more(
    hana: User, ken: User, mint_key: MintKey, with_key: Callable[[str], Client]
) -> None:
    program = with_key(mint_key(hana, Permission.USERS_MANAGE)[1])
    boss = make_person("boss", hana.as_role)

    created = program.post(USERS, {"username": "mio", "role": "viewer"}, content_type="application/json")
    assert created.status_code == 201
    for answer in (
        program.post(USERS, {"username": "root", "role": "admin"}, content_type="application/json"),
        program.post(USERS, {"username": "root", "role": "operator"}, content_type="application/json"),
        put(program, User.objects.get(username="mio"), role="operator"),
        program.post(f"{USERS}/{ken.pk}/reset-password"),
        put(program, ken, role="administrator"),
        put(program, boss, is_active=False),
        program.delete(f"{USERS}/{boss.pk}"),
        program.post(f"{USERS}/{boss.pk}/reset-password"),
    ):
        assert answer.status_code == 403
    everything = with_key(mint_key(hana)[1])
    assert put(everything, ken, role="administrator").status_code == 200


def test_a_nobody_does_not_manage_users(ken: User, yui: User, signed_in: Callable[[User], Client]) -> None:
    for person in (ken, yui):
        answer = signed_in(person).get(USERS)
        assert answer.status_code == 403
        assert answer.json()["error"]["message"] == "Missing required permission: users.manage"


def test_djangos_own_command_makes_an_administrator(db: None) -> None:
    user = User.objects.create_superuser("rescue", None, "three green umbrellas")

    assert user.role == "administrator"


def test_a_change_that_changes_nothing_is_no_news(hanas: Client, ken: User) -> None:
    before = AuditEvent.objects.count()

    assert put(hanas, ken, username="ken", role="operator").status_code == 200
    assert put(hanas, ken).status_code == 200
    assert AuditEvent.objects.count() == before


def test_who_did_it_is_kept(hanas: Client, hana: User, ken: User, mint_key: MintKey) -> None:
    put(hanas, ken, role="viewer")
    _, text = mint_key(hana)
    Client(headers={"authorization": f"Bearer {text}"}).delete(f"{USERS}/{ken.pk}")

    by_key, by_person = AuditEvent.objects.filter(action__in=["user.delete", "user.update"])
    assert (by_person.actor_kind, by_person.actor, by_person.target, by_person.ip) == (
        "user",
        "hana",
        "ken",
        "127.0.0.1",
    )
    assert (by_key.actor_kind, by_key.target) == ("key", "ken")
    assert by_key.actor.startswith("key 1 (sk_")
    assert text not in by_key.actor
