"""Minting from a shell."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from access.models import ApiKey, User


def create(*arguments: str) -> str:
    out = StringIO()
    call_command("create_key", *arguments, stdout=out)
    return out.getvalue().strip()


def test_it_prints_a_key_that_works(hana: User, with_key: Callable[[str], Client]) -> None:
    text = create("--user", "hana", "--name", "ci", "--permission", "users.manage", "--days", "3")

    assert with_key(text).get("/api/users").status_code == 200
    assert ApiKey.objects.get().expires_at is not None


@pytest.mark.parametrize(
    "arguments",
    [
        ("--user", "nobody", "--name", "ci", "--permission", "users.manage"),
        ("--user", "yui", "--name", "ci", "--permission", "users.manage"),
        ("--user", "yui", "--name", "ci", "--permission", "everything"),
        ("--user", "yui", "--name", "ci", "--permission", "openai.inference", "--days", "0"),
    ],
)
def test_it_says_why_not(yui: User, arguments: tuple[str, ...]) -> None:
    with pytest.raises(CommandError):
        create(*arguments)
    assert not ApiKey.objects.exists()
