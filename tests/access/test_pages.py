"""Pages about people and keys, as a browser without script sees them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from access.models import ApiKey, AuditEvent, User
from access.permissions import Permission
from tests.conftest import PASSWORD, MintKey


def sign_in(client: Client, password: str = PASSWORD, **values: str) -> Any:
    return client.post("/login", {"username": "ken", "password": password, **values})


def secret_on(answer: Any) -> str:
    found = re.search(r'id="secret"[^>]*>([^<]+)<', answer.content.decode())
    assert found is not None
    return found[1].strip()


def test_signing_in_leads_to_where_one_wanted_to_go(ken: User, client: Client) -> None:
    wanted = client.get("/keys/?revoked")
    assert wanted["Location"] == "/login?next=%2Fkeys%2F%3Frevoked"
    page = client.get(wanted["Location"])
    assert 'value="/keys/?revoked"' in page.content.decode()

    answer = sign_in(client, next="/keys/?revoked")

    assert (answer.status_code, answer["Location"]) == (302, "/keys/?revoked")
    assert client.get("/keys/").status_code == 200
    assert AuditEvent.objects.filter(action="sign_in.session", actor="ken").exists()


@pytest.mark.parametrize("elsewhere", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:x()"])
def test_signing_in_leads_nowhere_else(ken: User, client: Client, elsewhere: str) -> None:
    assert sign_in(client, next=elsewhere)["Location"] == "/"
    assert client.get("/login", {"next": elsewhere})["Location"] == "/"


def test_a_wrong_password_is_told_and_after_ten_it_is_enough(ken: User, client: Client) -> None:
    answer = sign_in(client, "wrong")
    assert answer.status_code == 401
    assert "Invalid username or password" in answer.content.decode()
    for _ in range(9):
        sign_in(client, "wrong")

    assert sign_in(client).status_code == 429
    assert "_auth_user_id" not in client.session


def test_htmx_is_sent_to_sign_in_as_it_understands_it(db: None, client: Client) -> None:
    headers = {"HX-Request": "true", "HX-Current-URL": "http://testserver/nodes/?q=1"}

    answer = client.get("/keys/", headers=headers)

    assert answer.status_code == 204
    assert answer["HX-Redirect"] == "/login?next=%2Fnodes%2F%3Fq%3D1"


def test_signing_out_is_a_post(ken: User, client: Client) -> None:
    sign_in(client)

    assert client.get("/logout").status_code == 405
    assert client.post("/logout")["Location"] == "/login"
    assert client.get("/keys/").status_code == 302


def test_the_admins_own_doors_lead_to_ours(ken: User, client: Client, signed_in: Callable[[User], Client]) -> None:
    assert client.get("/admin/login/?next=/admin/")["Location"] == "/login?next=%2Fadmin%2F"
    assert client.get("/admin/")["Location"] == "/login?next=%2Fadmin%2F"
    assert signed_in(ken).get("/admin/password_change/")["Location"].startswith("/account/password")


def test_changing_ones_password_keeps_this_session(ken: User, signed_in: Callable[[User], Client]) -> None:
    browser = signed_in(ken)
    values = {"current_password": PASSWORD, "new_password": "three green umbrellas", "again": "three green umbrellas"}

    assert browser.post("/account/password", {**values, "again": "other"}).status_code == 422
    assert browser.post("/account/password", {**values, "current_password": "no"}).status_code == 422
    assert browser.post("/account/password", values)["Location"] == "/"
    assert browser.get("/keys/").status_code == 200
    ken.refresh_from_db()
    assert ken.check_password("three green umbrellas")


def test_a_key_is_minted_shown_once_and_works(
    ken: User, signed_in: Callable[[User], Client], with_key: Callable[[str], Client]
) -> None:
    browser = signed_in(ken)
    values = {"name": "ci", "permissions": ["endpoints.read"], "lifetime": "7", "allowed_models": "a\r\n\r\nb\r\n"}

    answer = browser.post("/keys/", values)

    assert answer.status_code == 200
    assert "no-store" in answer["Cache-Control"]
    text = secret_on(answer)
    assert with_key(text).get("/api/schema").status_code == 200
    again = browser.get("/keys/").content.decode()
    assert text not in again
    assert text[:15] in again
    key = ApiKey.objects.get()
    assert key.allowed_models == ["a", "b"]
    assert key.expires_at is not None
    assert 6 <= (key.expires_at - key.created_at).days <= 7


@pytest.mark.parametrize(
    "values",
    [
        {"name": "ci", "lifetime": ""},
        {"name": "", "permissions": ["endpoints.read"], "lifetime": ""},
        {"name": "ci", "permissions": ["users.manage"], "lifetime": ""},
        {"name": "ci", "permissions": ["endpoints.read"], "lifetime": "9999"},
    ],
    ids=["no permission", "no name", "more than the role", "no preset"],
)
def test_a_key_that_cannot_be_is_told_on_the_page(
    ken: User, signed_in: Callable[[User], Client], values: dict[str, Any]
) -> None:
    answer = signed_in(ken).post("/keys/", values)

    assert answer.status_code == 422
    assert "errorlist" in answer.content.decode()
    assert not ApiKey.objects.exists()


def test_a_name_that_is_taken_is_told_on_the_page(
    ken: User, mint_key: MintKey, signed_in: Callable[[User], Client]
) -> None:
    mint_key(ken, Permission.INFERENCE, name="ci")

    answer = signed_in(ken).post("/keys/", {"name": "ci", "permissions": ["endpoints.read"], "lifetime": ""})

    assert "There is already a key of this name." in answer.content.decode()


def test_everyone_sees_their_own_keys_and_administrators_all(
    hana: User, ken: User, mint_key: MintKey, signed_in: Callable[[User], Client]
) -> None:
    mint_key(hana, name="hanas key")
    mint_key(ken, name="kens key")

    assert "hanas key" not in signed_in(ken).get("/keys/").content.decode()
    page = signed_in(hana).get("/keys/").content.decode()
    assert "hanas key" in page
    assert "kens key" in page


def test_revoking_asks_first(
    ken: User, yui: User, mint_key: MintKey, signed_in: Callable[[User], Client], with_key: Callable[[str], Client]
) -> None:
    key, text = mint_key(ken, name="<b>bold</b>")
    browser = signed_in(ken)

    assert signed_in(yui).post(f"/keys/{key.pk}/revoke").status_code == 404
    question = browser.get(f"/keys/{key.pk}/revoke").content.decode()
    assert "&lt;b&gt;bold&lt;/b&gt;" in question
    assert with_key(text).get("/api/schema").status_code == 200
    assert browser.post(f"/keys/{key.pk}/revoke")["Location"] == "/keys/"
    assert with_key(text).get("/api/schema").status_code == 401
    assert key.prefix in browser.get("/keys/?revoked").content.decode()


def test_a_key_without_an_end_carries_a_warning(
    ken: User, mint_key: MintKey, signed_in: Callable[[User], Client]
) -> None:
    mint_key(ken)

    assert "⚠" in signed_in(ken).get("/keys/").content.decode()


def test_an_administrator_creates_changes_and_deletes_people(hana: User, signed_in: Callable[[User], Client]) -> None:
    browser = signed_in(hana)

    created = browser.post("/users/", {"username": "mio", "role": "operator"})
    mio = User.objects.get(username="mio")
    assert mio.check_password(secret_on(created))
    assert mio.must_change_password

    changed = browser.post(f"/users/{mio.pk}", {"username": "mio", "role": "viewer"})
    assert changed["Location"] == "/users/"
    mio.refresh_from_db()
    assert (mio.role, mio.is_active) == ("viewer", False)

    reset = browser.post(f"/users/{mio.pk}/reset-password")
    mio.refresh_from_db()
    assert mio.check_password(secret_on(reset))

    assert "Delete mio?" in browser.get(f"/users/{mio.pk}/delete").content.decode()
    assert browser.post(f"/users/{mio.pk}/delete")["Location"] == "/users/"
    assert not User.objects.filter(pk=mio.pk).exists()


def test_the_last_administrator_stays_on_the_pages_too(hana: User, signed_in: Callable[[User], Client]) -> None:
    browser = signed_in(hana)

    answer = browser.post(f"/users/{hana.pk}", {"username": "hana", "role": "viewer", "is_active": "on"})
    assert answer.status_code == 422
    assert "last active administrator" in answer.content.decode()
    browser.post(f"/users/{hana.pk}/delete")
    hana.refresh_from_db()
    assert hana.role == "administrator"


def test_a_page_is_in_the_language_that_the_browser_prefers(ken: User, client: Client) -> None:
    page = client.get("/login", headers={"accept-language": "ja"}).content.decode()

    assert '<html lang="ja"' in page


def test_no_cache_keeps_what_was_made_for_a_person(hana: User, signed_in: Callable[[User], Client]) -> None:
    browser = signed_in(hana)
    kept = [
        path
        for path in (
            "/",
            "/nodes/",
            "/keys/",
            "/users/",
            f"/users/{hana.pk}",
            "/history/",
            "/admin/",
            "/api/users",
            "/no",
        )
        if "no-store" not in browser.get(path).headers.get("Cache-Control", "")
    ]

    assert kept == []
