"""An empty installation: the first administrator, and the key that automation asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import Client
from pytest_django import Settings

from access import services
from access.audit import SYSTEM
from access.checks import check_first_administrator
from access.models import ApiKey, User
from access.permissions import Permission, Role
from access.queries import live_principals

pytestmark = pytest.mark.django_db
Configure = Callable[..., None]


@pytest.fixture
def configure(settings: Settings) -> Configure:
    def change(**values: Any) -> None:
        settings.LLMLB = dataclasses.replace(settings.LLMLB, **values)

    return change


def test_a_random_password_is_given_once_and_must_be_changed() -> None:
    first = services.ensure_first_admin()

    assert first is not None
    assert first.username == "admin"
    assert first.generated_password is not None
    user = User.objects.get()
    assert user.check_password(first.generated_password)
    assert user.must_change_password
    assert user.as_role is Role.ADMINISTRATOR
    assert user.is_superuser
    assert services.ensure_first_admin() is None


def test_a_password_that_was_given_is_nobodys_to_print(configure: Configure) -> None:
    configure(admin_username="hana", admin_password="from the operator")

    assert services.ensure_first_admin() == services.FirstAdmin("hana", None)
    user = User.objects.get(username="hana")
    assert user.check_password("from the operator")
    assert not user.must_change_password


def test_there_is_none_where_an_administrator_is(hana: User) -> None:
    assert services.ensure_first_admin() is None
    assert User.objects.count() == 1


def test_a_name_or_password_that_cannot_be_is_told_before_the_start(configure: Configure) -> None:
    configure(admin_username="a b", admin_password="short")

    assert [found.id for found in check_first_administrator(None)] == ["llmlb.access.E001", "llmlb.access.E002"]
    with pytest.raises(ImproperlyConfigured, match="LLMLB_ADMIN_USERNAME"):
        services.ensure_first_admin()


@pytest.mark.parametrize(
    "text", ["sk_" + "a1" * 22, "sk_" + "url-safe_" * 5, "any text of the operator, without spaces".replace(" ", "-")]
)
def test_the_bootstrap_key_may_do_everything(
    hana: User, configure: Configure, with_key: Callable[[str], Client], text: str
) -> None:
    configure(bootstrap_api_key=text)

    key = services.ensure_bootstrap_key()

    assert key is not None
    assert key.owner == hana
    assert with_key(text).get("/api/users").status_code == 200
    assert next(iter(live_principals())).permissions == frozenset(Permission)
    assert services.ensure_bootstrap_key() is None
    assert key.prefix.removeprefix("sk_") not in text or len(key.public_id) == 12


def test_a_revoked_bootstrap_key_stays_revoked(hana: User, configure: Configure) -> None:
    configure(bootstrap_api_key="sk_" + "a" * 44)
    key = services.ensure_bootstrap_key()
    assert key is not None
    services.revoke_api_key(key, actor=SYSTEM)

    assert services.ensure_bootstrap_key() is None
    assert ApiKey.objects.get().revoked_at is not None


def test_another_value_is_another_key(hana: User, configure: Configure) -> None:
    for letter in "ab":
        configure(bootstrap_api_key="sk_" + letter * 44)
        assert services.ensure_bootstrap_key() is not None

    assert ApiKey.objects.count() == 2


@pytest.mark.parametrize("text", ["x" * 31, "with a space in it, which no header takes", "日本語" * 20])
def test_a_value_that_cannot_be_sent_is_refused(hana: User, configure: Configure, text: str) -> None:
    configure(bootstrap_api_key=text)

    with pytest.raises(ImproperlyConfigured, match="LLMLB_BOOTSTRAP_API_KEY"):
        services.ensure_bootstrap_key()


def test_nothing_is_made_where_nothing_was_asked_for(hana: User, settings: Settings) -> None:
    assert settings.LLMLB.bootstrap_api_key is None
    assert services.ensure_bootstrap_key() is None
