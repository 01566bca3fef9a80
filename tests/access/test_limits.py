"""Setting a key's limits: by whom, with which values, and that the gateways hear of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from access.models import ApiKey, AuditEvent, KeyLimit, User
from access.permissions import Permission
from access.queries import live_principals
from llmlb_site.lib.models import Revision
from tests.conftest import MintKey

MINE = "/api/me/api-keys"
ALL = "/api/api-keys"
NONE = {
    "requests_per_minute": None,
    "tokens_per_minute": None,
    "concurrent_requests": None,
    "tokens_per_day": None,
    "tokens_per_month": None,
}
PER_MINUTE = {"model": "", **NONE, "requests_per_minute": 60}
OF_MODEL = {"model": "model-a", **NONE, "tokens_per_day": 1000}
SignedIn = Callable[[User], Client]


@pytest.fixture
def hanas(hana: User, signed_in: SignedIn) -> Client:
    return signed_in(hana)


def put(browser: Client, path: str, **values: Any) -> Any:
    return browser.put(path, values, content_type="application/json")


def test_limits_are_set_read_and_replaced_as_a_whole(hanas: Client, hana: User, mint_key: MintKey) -> None:
    path = f"{ALL}/{mint_key(hana)[0].pk}"

    answer = put(hanas, path, limits=[{"requests_per_minute": 60}, {"model": "model-a", "tokens_per_day": 1000}])

    assert answer.status_code == 200
    assert answer.json()["limits"] == [PER_MINUTE, OF_MODEL]
    assert hanas.get(path).json()["limits"] == [PER_MINUTE, OF_MODEL]
    assert put(hanas, path, name="other").json()["limits"] == [PER_MINUTE, OF_MODEL], "what is not named stays"
    assert put(hanas, path, limits=[OF_MODEL]).json()["limits"] == [OF_MODEL]
    assert put(hanas, path, limits=[]).json()["limits"] == []


def test_a_key_is_minted_with_its_limits(hanas: Client) -> None:
    values = {"name": "ci", "permissions": ["openai.inference"], "limits": [PER_MINUTE]}
    answer = hanas.post(ALL, values, content_type="application/json")

    assert answer.status_code == 201
    assert answer.json()["limits"] == [PER_MINUTE]
    (row,) = live_principals()
    assert [limit.requests_per_minute for limit in row.limits] == [60]


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        ([{"requests_per_minute": 0}], "limits.0.requests_per_minute"),
        ([{"tokens_per_day": -1}], "limits.0.tokens_per_day"),
        ([{"tokens_per_day": 10**13}], "limits.0.tokens_per_day"),
        ([{"concurrent_requests": "many"}], "limits.0.concurrent_requests"),
        ([PER_MINUTE, {"model": "a"}], "limits.1"),
        ([PER_MINUTE, PER_MINUTE], "limits.1.model"),
        ([{"model": "x" * 301, "tokens_per_day": 1}], "limits.0.model"),
        ([{"model": f"m{number}", "tokens_per_day": 1} for number in range(101)], "limits"),
        ("none", "limits"),
    ],
)
def test_what_cannot_be_a_limit_is_refused_by_name(
    hanas: Client, hana: User, mint_key: MintKey, limits: Any, field: str
) -> None:
    key, _ = mint_key(hana)

    answer = put(hanas, f"{ALL}/{key.pk}", limits=limits, name="not this either")

    assert answer.status_code == 400
    assert any(name.startswith(field) for name in answer.json()["error"]["fields"])
    assert not KeyLimit.objects.exists()
    assert ApiKey.objects.get().name == key.name


def test_nobody_lifts_their_own_limits(hana: User, ken: User, mint_key: MintKey, signed_in: SignedIn) -> None:
    key, _ = mint_key(ken)
    put(signed_in(hana), f"{ALL}/{key.pk}", limits=[PER_MINUTE])
    kens = signed_in(ken)

    for limits in ([], [{"requests_per_minute": 1}]):
        answer = put(kens, f"{MINE}/{key.pk}", limits=limits)
        assert answer.status_code == 403
        assert answer.json()["error"]["code"] == "insufficient_permission"
    minted = {"name": "other", "permissions": ["openai.inference"], "limits": [PER_MINUTE]}
    assert kens.post(MINE, minted, content_type="application/json").status_code == 403
    assert kens.get(f"{MINE}/{key.pk}").json()["limits"] == [PER_MINUTE]
    assert put(kens, f"{MINE}/{key.pk}", name="mine").status_code == 200


def test_a_key_that_manages_keys_limits_others_and_not_itself(
    hana: User, mint_key: MintKey, with_key: Callable[[str], Client]
) -> None:
    manager, text = mint_key(hana, Permission.API_KEYS_MANAGE)
    consumer, _ = mint_key(hana, Permission.INFERENCE)
    program = with_key(text)

    assert put(program, f"{ALL}/{consumer.pk}", limits=[PER_MINUTE]).status_code == 200
    assert put(program, f"{ALL}/{manager.pk}", limits=[]).status_code == 403


def test_each_change_is_audited_and_news_for_the_gateway(hanas: Client, hana: User, mint_key: MintKey) -> None:
    key, _ = mint_key(hana)
    before = Revision.objects.get(topic="keys").number

    put(hanas, f"{ALL}/{key.pk}", limits=[{"tokens_per_month": 5}])
    put(hanas, f"{ALL}/{key.pk}", limits=[{"tokens_per_month": 5}])

    assert Revision.objects.get(topic="keys").number > before
    (event,) = AuditEvent.objects.filter(action="key.limits")
    assert event.details == {"limits": [{"model": "", "tokens_per_month": 5}]}
    assert event.actor == "hana"


# --- the admin -------------------------------------------------------------------------------------------------------


def row(number: int, **values: Any) -> dict[str, Any]:
    return {f"limits-{number}-{name}": value for name, value in values.items()}


def test_limits_in_the_admin(hanas: Client, hana: User, mint_key: MintKey) -> None:
    key, _ = mint_key(hana, Permission.INFERENCE)
    path = f"/admin/access/apikey/{key.pk}/change/"
    fields = {"name": key.name, "permissions": ["openai.inference"], "enabled": "on", "allowed_models": ""}

    forms = {"limits-TOTAL_FORMS": 2, "limits-INITIAL_FORMS": 0}
    both = {**row(0, model="", requests_per_minute=60), **row(1, model="model-a", tokens_per_day=1000)}
    assert hanas.post(path, {**fields, **forms, **both}).status_code == 302
    assert [(each.model, each.requests_per_minute) for each in key.limits.all()] == [("", 60), ("model-a", None)]
    assert b'value="1000"' in hanas.get(path).content

    first, second = key.limits.all()
    forms = {"limits-TOTAL_FORMS": 2, "limits-INITIAL_FORMS": 2}
    changed = {
        **row(0, id=first.pk, key=key.pk, model="", requests_per_minute=30),
        **row(1, id=second.pk, key=key.pk, model="model-a", tokens_per_day=1000, DELETE="on"),
    }
    assert hanas.post(path, {**fields, **forms, **changed}).status_code == 302
    assert [(each.model, each.requests_per_minute) for each in key.limits.all()] == [("", 30)]

    assert hanas.post(path, {**fields, "name": "renamed"}).status_code == 302
    assert ApiKey.objects.get().name == "renamed"
    assert key.limits.count() == 1, "a form without the limits leaves them"
