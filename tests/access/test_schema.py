"""The OpenAPI document: for who has a name here, 3.1, without a warning, and true about who may."""

from __future__ import annotations

from collections.abc import Callable

from django.core.management import call_command
from django.test import Client

from access.models import User
from access.permissions import Permission
from tests.access.walk import every_url
from tests.conftest import MintKey


def test_it_is_for_people_and_for_any_key(
    yui: User, client: Client, mint_key: MintKey, signed_in: Callable[[User], Client], with_key: Callable[[str], Client]
) -> None:
    assert client.get("/api/schema").status_code == 401
    assert with_key(mint_key(yui, Permission.METRICS_READ)[1]).get("/api/schema").status_code == 200
    answer = signed_in(yui).get("/api/schema")
    assert answer["Content-Type"] == "application/vnd.oai.openapi+json"
    assert answer.json()["openapi"] == "3.1.0"


def test_it_lists_every_operation_and_says_who_may(yui: User, signed_in: Callable[[User], Client]) -> None:
    paths = signed_in(yui).get("/api/schema").json()["paths"]
    served = sum(len(url.methods) for url in every_url() if url.is_api and url.path.strip("/") != "api/schema")

    assert sum(len(operations) for operations in paths.values()) == served
    assert "`users.manage`" in paths["/api/users"]["post"]["description"]
    assert paths["/api/auth/login"]["post"]["security"] == [{}]
    assert all("4XX" in operation["responses"] for operations in paths.values() for operation in operations.values())


def test_it_is_valid_and_made_without_a_warning(tmp_path: object) -> None:
    call_command("spectacular", "--validate", "--fail-on-warn", "--file", f"{tmp_path}/schema.yaml")
