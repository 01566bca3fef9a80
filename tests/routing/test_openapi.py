"""The OpenAPI document of `/v1/*`: complete, valid, and for those who have a name here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.test import Client
from jsonschema import Draft202012Validator

from access.models import User
from routing import openapi
from routing.protocols.registry import APIS


def test_every_inference_path_is_in_it() -> None:
    document = openapi.document()
    posts = {path for path, operations in document["paths"].items() if "post" in operations}
    assert posts == set(APIS)
    assert {"/v1/models", "/v1/models/{model}"} <= set(document["paths"])
    assert document["openapi"] == "3.1.0"


def test_what_an_api_needs_is_said() -> None:
    """A path without an entry of its own would promise that a model alone makes a request."""
    for path, operations in openapi.document()["paths"].items():
        if "post" in operations:
            (media,) = operations["post"]["requestBody"]["content"].values()
            assert len(media["schema"]["required"]) >= 2, path


def test_its_schemas_are_schemas() -> None:
    document = openapi.document()
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    for operations in document["paths"].values():
        for operation in operations.values():
            for media in operation.get("requestBody", {"content": {}})["content"].values():
                Draft202012Validator.check_schema(media["schema"])
    ids = [operation["operationId"] for operations in document["paths"].values() for operation in operations.values()]
    assert len(ids) == len(set(ids))


def test_who_may_read_it(yui: User, signed_in: Callable[[User], Client]) -> None:
    assert Client().get("/api/schema/v1").status_code == 401
    answer: Any = signed_in(yui).get("/api/schema/v1")
    assert answer.status_code == 200
    assert "/v1/chat/completions" in answer.json()["paths"]
