"""API keys over the API: minted once shown, listed by prefix, changed, revoked at once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from access.models import ApiKey, AuditEvent, User
from access.permissions import Permission
from llmlb_site.lib.models import Revision
from tests.conftest import MintKey

MINE = "/api/me/api-keys"
ALL = "/api/api-keys"


@pytest.fixture
def hanas(hana: User, signed_in: Callable[[User], Client]) -> Client:
    return signed_in(hana)


def send(browser: Client, path: str, **values: Any) -> Any:
    return browser.post(path, values, content_type="application/json")


def test_a_key_is_shown_once_and_works_at_once(hanas: Client, with_key: Callable[[str], Client]) -> None:
    answer = send(hanas, MINE, name="ci", permissions=["users.manage"])

    assert answer.status_code == 201
    text = answer.json()["key"]
    assert text.startswith("sk_")
    assert len(text) >= 43
    assert with_key(text).get("/api/users").status_code == 200
    listed = hanas.get(MINE).json()
    assert listed["total"] == 1
    assert "key" not in listed["api_keys"][0]
    assert text not in str(listed)
    assert text.startswith(listed["api_keys"][0]["key_prefix"])
    assert "key" not in hanas.get(f"{MINE}/{answer.json()['id']}").json()


def test_the_database_has_neither_the_key_nor_its_secret(hanas: Client) -> None:
    text = send(hanas, MINE, name="ci", permissions=["users.manage"]).json()["key"]
    key = ApiKey.objects.get()

    assert text[15:] not in str(key.__dict__)
    assert len(bytes(key.digest)) == 32
    assert text not in str(list(AuditEvent.objects.values()))


@pytest.mark.parametrize("header", ["authorization", "x-api-key"])
def test_both_headers_do(hana: User, mint_key: MintKey, header: str) -> None:
    text = mint_key(hana, Permission.USERS_MANAGE)[1]
    value = f"bearer {text}" if header == "authorization" else text

    assert Client(headers={header: value}).get("/api/users").status_code == 200


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"name": "k"}, "permissions"),
        ({"name": "k", "permissions": []}, "permissions"),
        ({"name": "k", "permissions": None}, "permissions"),
        ({"name": "k", "permissions": ["root"]}, "permissions"),
        ({"name": "k", "permissions": "users.manage"}, "permissions"),
        ({"name": "k", "scopes": ["admin"]}, "scopes"),
        ({"name": "k", "permissions": ["users.manage"], "scopes": ["admin"]}, "scopes"),
        ({"permissions": ["users.manage"]}, "name"),
        ({"name": " ", "permissions": ["users.manage"]}, "name"),
        ({"name": "x" * 101, "permissions": ["users.manage"]}, "name"),
        ({"name": "k\nforged", "permissions": ["users.manage"]}, "name"),
        ({"name": "k", "permissions": ["users.manage"], "expires_at": "2001-01-01T00:00:00Z"}, "expires_at"),
        ({"name": "k", "permissions": ["users.manage"], "expires_at": "soon"}, "expires_at"),
        ({"name": "k", "permissions": ["users.manage"], "allowed_models": [""]}, "allowed_models"),
    ],
)
def test_what_cannot_be_a_key_is_refused_by_name(hanas: Client, values: dict[str, Any], field: str) -> None:
    for path in (MINE, ALL):
        answer = hanas.post(path, values, content_type="application/json")

        assert answer.status_code == 400
        error = answer.json()["error"]
        assert error["code"] == "validation_error"
        assert any(name.split(".")[0] == field for name in error["fields"])
    assert not ApiKey.objects.exists()


@pytest.mark.parametrize("values", [{}, {"permissions": []}, {"permissions": None}])
def test_a_key_without_permissions_is_told_so(hanas: Client, values: dict[str, Any]) -> None:
    answer = send(hanas, MINE, name="k", **values)

    assert answer.json()["error"]["fields"]["permissions"] == ["permissions are required"]


def test_a_name_is_taken_while_its_key_lives(hanas: Client) -> None:
    first = send(hanas, MINE, name="ci", permissions=["users.manage"]).json()

    assert send(hanas, MINE, name="ci", permissions=["users.manage"]).status_code == 409
    assert hanas.delete(f"{MINE}/{first['id']}").status_code == 204
    assert send(hanas, MINE, name="ci", permissions=["users.manage"]).status_code == 201


def test_a_key_can_do_no_more_than_its_owner(ken: User, signed_in: Callable[[User], Client]) -> None:
    answer = send(signed_in(ken), MINE, name="k", permissions=["endpoints.manage", "users.manage"])

    assert answer.status_code == 400
    assert "users.manage" in answer.json()["error"]["fields"]["permissions"][0]


def test_a_key_that_mints_can_give_what_it_has_and_what_any_consumer_has(
    hana: User, mint_key: MintKey, with_key: Callable[[str], Client]
) -> None:
    program = with_key(mint_key(hana, Permission.API_KEYS_MANAGE)[1])

    assert send(program, ALL, name="consumer", permissions=["openai.inference"]).status_code == 201
    refused = send(program, ALL, name="everything", permissions=["api_keys.manage", "users.manage"])
    assert refused.status_code == 400
    assert "users.manage" in str(refused.json())


def test_a_key_that_mints_cannot_touch_one_that_may_do_more(
    hana: User, mint_key: MintKey, with_key: Callable[[str], Client]
) -> None:
    strong, _ = mint_key(hana)
    program = with_key(mint_key(hana, Permission.API_KEYS_MANAGE)[1])

    answer = program.put(f"{ALL}/{strong.pk}", {"enabled": False}, content_type="application/json")

    assert answer.status_code == 403


def test_a_revoked_key_is_refused_with_the_next_request(
    hanas: Client, hana: User, mint_key: MintKey, with_key: Callable[[str], Client]
) -> None:
    key, text = mint_key(hana, Permission.USERS_MANAGE)
    program = with_key(text)
    assert program.get("/api/users").status_code == 200

    assert hanas.delete(f"{ALL}/{key.pk}").status_code == 204

    assert program.get("/api/users").status_code == 401
    assert hanas.get(f"{ALL}/{key.pk}").json()["state"] == "revoked"
    assert hanas.delete(f"{ALL}/{key.pk}").status_code == 204
    changed = hanas.put(f"{ALL}/{key.pk}", {"enabled": True}, content_type="application/json")
    assert changed.status_code == 409


def test_garbage_expired_revoked_and_disabled_read_the_same(
    hana: User, mint_key: MintKey, with_key: Callable[[str], Client]
) -> None:
    expired, expired_text = mint_key(hana)
    disabled, disabled_text = mint_key(hana)
    revoked, revoked_text = mint_key(hana)
    now = timezone.now()
    ApiKey.objects.filter(pk=expired.pk).update(expires_at=now - timedelta(seconds=1))
    ApiKey.objects.filter(pk=disabled.pk).update(enabled=False)
    ApiKey.objects.filter(pk=revoked.pk).update(revoked_at=now)
    wrong_secret = mint_key(hana)[1][:-1] + "!"
    texts = [expired_text, disabled_text, revoked_text, wrong_secret, "garbage", "sk_" + "a" * 44]

    answers = [with_key(text).get("/api/users") for text in texts]

    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.content for answer in answers}) == 1
    assert answers[0].json()["error"]["code"] == "invalid_credentials"
    assert answers[0]["WWW-Authenticate"] == "Bearer"


def test_no_key_at_all_is_its_own_answer(client: Client, db: None) -> None:
    answer = client.get("/api/users")

    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "authentication_required"


def test_change_of_name_expiry_permissions_models_and_enabled(
    hanas: Client, hana: User, mint_key: MintKey, with_key: Callable[[str], Client]
) -> None:
    key, text = mint_key(hana, Permission.USERS_MANAGE)
    later = (timezone.now() + timedelta(days=3)).isoformat()
    values = {"name": "new", "expires_at": later, "permissions": ["logs.read"], "allowed_models": ["a", "b", "a"]}

    answer = hanas.patch(f"{MINE}/{key.pk}", values, content_type="application/json")

    assert answer.status_code == 200
    assert answer.json()["allowed_models"] == ["a", "b"]
    assert with_key(text).get("/api/users").status_code == 403
    hanas.put(f"{MINE}/{key.pk}", {"enabled": False, "expires_at": None}, content_type="application/json")
    key.refresh_from_db()
    assert (key.name, key.expires_at, key.state) == ("new", None, "disabled")
    assert with_key(text).get("/api/users").status_code == 401


def test_nobody_reaches_anothers_key_among_their_own(
    hana: User, ken: User, mint_key: MintKey, signed_in: Callable[[User], Client]
) -> None:
    key, _ = mint_key(hana)
    browser = signed_in(ken)

    assert browser.get(f"{MINE}/{key.pk}").status_code == 404
    assert browser.delete(f"{MINE}/{key.pk}").status_code == 404
    assert browser.get(ALL).status_code == 403


def test_a_key_is_never_a_person(hana: User, mint_key: MintKey, with_key: Callable[[str], Client]) -> None:
    program = with_key(mint_key(hana)[1])

    for method, path in [("get", MINE), ("get", "/api/auth/me"), ("put", "/api/auth/change-password")]:
        answer = getattr(program, method)(path)
        assert answer.status_code == 403
        assert answer.json()["error"]["code"] == "sign_in_required"


def test_each_change_is_news_for_the_gateway(hanas: Client) -> None:
    def revision() -> int:
        return Revision.objects.filter(topic="keys").values_list("number", flat=True).first() or 0

    seen = [revision()]
    made = send(hanas, MINE, name="ci", permissions=["users.manage"]).json()
    seen.append(revision())
    hanas.put(f"{MINE}/{made['id']}", {"name": "cd"}, content_type="application/json")
    seen.append(revision())
    hanas.delete(f"{MINE}/{made['id']}")
    seen.append(revision())

    assert seen == sorted(set(seen))


def test_use_is_noted_at_most_once_a_minute(hana: User, mint_key: MintKey, with_key: Callable[[str], Client]) -> None:
    key, text = mint_key(hana, Permission.USERS_MANAGE)
    with_key(text).get("/api/users")
    key.refresh_from_db()
    first = key.last_used_at
    with_key(text).get("/api/users")
    key.refresh_from_db()

    assert first is not None
    assert key.last_used_at == first
