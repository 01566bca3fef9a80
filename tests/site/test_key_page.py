"""A key's page and its use by API: who sees it, what it shows, and the form that sets its limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from access.audit import SYSTEM
from access.models import ApiKey, User
from access.services import revoke_api_key, update_api_key
from history.models import TokenTotal
from routing import live
from routing.core.limits import Limit, Reading
from tests.conftest import MintKey

SignedIn = Callable[[User], Client]


@pytest.fixture
def key(ken: User, mint_key: MintKey) -> ApiKey:
    """Of ken, with two limits, and used today."""
    found, _ = mint_key(ken, name="ken's")
    of_model = {"model": "model-a", "tokens_per_day": 5000}
    update_api_key(found, actor=SYSTEM, limits=[{"requests_per_minute": 60, "tokens_per_month": 10_000}, of_model])
    counts = {"prompt_tokens": 1000, "completion_tokens": 234}
    TokenTotal.objects.create(day=timezone.now().date(), node_id=1, model="model-a", api_key_id=found.pk, **counts)
    return found


def fields(number: int = 0, **values: Any) -> dict[str, Any]:
    """What the page's form sends: `all-…`, and `models-N-…`."""
    return {
        "models-TOTAL_FORMS": number,
        "models-INITIAL_FORMS": 0,
        **{k.replace("__", "-"): v for k, v in values.items()},
    }


def test_the_page_shows_what_is_used(
    ken: User, key: ApiKey, signed_in: SignedIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def used(limits: list[Limit]) -> list[Reading]:
        return [Reading(requests=42), Reading()]

    monkeypatch.setattr(live, "use_of", used)
    text = signed_in(ken).get(f"/keys/{key.pk}/").content.decode()

    for shown in ("42 / 60", "1,234 / 10,000", "1,234 / 5,000", "model-a"):
        assert shown in text
    assert "Save limits" not in text


def test_without_a_gateway_it_shows_what_the_history_knows(ken: User, key: ApiKey, signed_in: SignedIn) -> None:
    part = signed_in(ken).get(f"/keys/{key.pk}/", headers={"hx-request": "true"}).content.decode()

    assert "0 / 60" in part
    assert "1,234 / 10,000" in part
    assert "<html" not in part


def test_ones_own_key_and_nobody_elses(ken: User, yui: User, hana: User, key: ApiKey, signed_in: SignedIn) -> None:
    assert signed_in(yui).get(f"/keys/{key.pk}/").status_code == 404
    assert signed_in(hana).get(f"/keys/{key.pk}/").status_code == 200
    assert signed_in(yui).get(f"/api/me/api-keys/{key.pk}/usage").status_code == 404
    assert signed_in(ken).get(f"/api/api-keys/{key.pk}/usage").status_code == 403


def test_use_by_api(ken: User, hana: User, key: ApiKey, signed_in: SignedIn) -> None:
    mine = signed_in(ken).get(f"/api/me/api-keys/{key.pk}/usage").json()

    assert mine == {
        "tokens_today": 1234,
        "tokens_this_month": 1234,
        "limits": [
            {
                "model": "",
                "requests_per_minute": {"limit": 60, "used": 0},
                "tokens_per_month": {"limit": 10_000, "used": 1234},
            },
            {"model": "model-a", "tokens_per_day": {"limit": 5000, "used": 1234}},
        ],
    }
    assert signed_in(hana).get(f"/api/api-keys/{key.pk}/usage").json() == mine


def test_an_administrator_sets_limits_here(hana: User, key: ApiKey, signed_in: SignedIn) -> None:
    browser, path = signed_in(hana), f"/keys/{key.pk}/"
    assert 'value="10000"' in browser.get(path).content.decode()

    values = fields(2, all__concurrent_requests=4, models__0__model="model-b", models__0__tokens_per_day=7)
    assert browser.post(path, values).status_code == 302

    found = [(limit.model, limit.concurrent_requests, limit.tokens_per_day) for limit in key.limits.all()]
    assert found == [("", 4, None), ("model-b", None, 7)]
    assert browser.post(path, fields()).status_code == 302
    assert not key.limits.exists()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (fields(all__tokens_per_day=0), "greater than or equal to 1"),
        (fields(1, models__0__tokens_per_day=5), "Name the model"),
        (
            fields(2, **{f"models-{n}-{k}": v for n in (0, 1) for k, v in (("model", "a"), ("tokens_per_day", 5))}),
            "two limits for the same model",
        ),
    ],
)
def test_what_cannot_be_is_told_beside_it(
    hana: User, key: ApiKey, signed_in: SignedIn, values: dict[str, Any], says: str
) -> None:
    answer = signed_in(hana).post(f"/keys/{key.pk}/", values)

    assert answer.status_code == 422
    assert says in answer.content.decode()
    assert key.limits.count() == 2


def test_only_who_manages_keys_sets_limits_and_not_of_a_revoked_key(
    ken: User, hana: User, key: ApiKey, signed_in: SignedIn
) -> None:
    assert signed_in(ken).post(f"/keys/{key.pk}/", fields()).status_code == 403
    revoke_api_key(key, actor=SYSTEM)
    assert signed_in(hana).post(f"/keys/{key.pk}/", fields()).status_code == 403
    assert signed_in(hana).get(f"/keys/{key.pk}/").status_code == 200
    assert key.limits.count() == 2
