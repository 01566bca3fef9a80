"""The people and keys that tests in every room speak of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis
import pytest
from django.conf import settings
from django.test import Client
from django.utils import translation

from access import services
from access.audit import SYSTEM
from access.models import ApiKey, User
from access.permissions import Permission, Role
from llmlb_site.lib import health

PASSWORD = "a long walk along the river"  # the password of everyone here

MintKey = Callable[..., tuple[ApiKey, str]]


def pytest_configure(config: pytest.Config) -> None:
    # How long an example takes says more about the machine than about the code.
    hypothesis.settings.register_profile("llmlb", deadline=None)
    hypothesis.settings.load_profile("llmlb")
    # Argon2 is slow on purpose; which hasher it is matters to one test, which says so itself.
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(autouse=True)
def _nothing_left_over() -> None:
    """What parts said of themselves in earlier tests, and the language of their last page, is not this one's affair."""
    for part in health.parts():
        health.forget(part.name)
    translation.deactivate()


def make_person(username: str, role: Role) -> User:
    return services.create_user(username=username, role=role, password=PASSWORD, actor=SYSTEM)[0]


@pytest.fixture
def hana(db: None) -> User:
    """An administrator."""
    return make_person("hana", Role.ADMINISTRATOR)


@pytest.fixture
def ken(db: None) -> User:
    """An operator."""
    return make_person("ken", Role.OPERATOR)


@pytest.fixture
def yui(db: None) -> User:
    """A viewer."""
    return make_person("yui", Role.VIEWER)


@pytest.fixture
def mint_key(db: None) -> MintKey:
    """`mint_key(hana, Permission.INFERENCE, …, name="…") -> (key, its text)`; no permission given means all."""

    def mint(owner: User, *permissions: Permission, **values: Any) -> tuple[ApiKey, str]:
        values.setdefault("name", f"key {ApiKey.objects.count() + 1}")
        given = permissions or tuple(owner.granted)
        return services.mint_api_key(owner=owner, permissions=given, actor=SYSTEM, **values)

    return mint


@pytest.fixture
def signed_in() -> Callable[[User], Client]:
    """`signed_in(ken)`: a browser with ken's session."""

    def sign_in(user: User) -> Client:
        browser = Client()
        browser.force_login(user)
        return browser

    return sign_in


@pytest.fixture
def with_key() -> Callable[[str], Client]:
    """`with_key(text)`: a program that sends this key or token."""
    return lambda text: Client(headers={"authorization": f"Bearer {text}"})
