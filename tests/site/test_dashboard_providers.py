"""Cloud providers on the models page and in the API: whether they are there, never with what key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from access.audit import SYSTEM
from access.models import User
from access.permissions import Permission
from models_catalog import services
from models_catalog.models import CloudProvider
from tests.conftest import MintKey

SignIn = Callable[[User], Client]


@pytest.fixture
def openai(db: None) -> CloudProvider:
    services.set_provider(name="openai", actor=SYSTEM, api_key="the-key-itself", base_url="http://10.9.8.7")
    row = CloudProvider.objects.get(name="openai")
    row.model_list = [{"id": "gpt-4o"}, {"id": "o3"}]
    row.save()
    return row


def test_the_models_page_shows_who_is_there(signed_in: SignIn, yui: User, ken: User, openai: CloudProvider) -> None:
    openai.last_error = "It answered with status 503."
    openai.save()
    for url in ("/models/", "/models/providers"):
        text = signed_in(yui).get(url).content.decode()
        for shown in ("OpenAI", "Anthropic", "not configured", "It answered with status 503.", "set in the admin"):
            assert shown in text
        assert "the-key-itself" not in text
        assert "10.9.8.7" not in text
        assert "Set up" not in text
    assert "/admin/models_catalog/cloudprovider/" in signed_in(ken).get("/models/").content.decode()


def test_the_status_tells_presence_alone(
    with_key: Callable[[str], Client], mint_key: MintKey, hana: User, openai: CloudProvider
) -> None:
    _, key = mint_key(hana, Permission.INFERENCE)
    answer = with_key(key).get("/api/status")
    assert answer.json()["cloud_providers"] == {
        "openai": {"configured": True, "models": 2},
        "google": {"configured": False, "models": 0},
        "anthropic": {"configured": False, "models": 0},
    }
    assert "10.9.8.7" not in answer.content.decode()


def test_metrics_of_providers_are_for_who_may_read_metrics(
    with_key: Callable[[str], Client], mint_key: MintKey, hana: User, monkeypatch: Any
) -> None:
    _, without = mint_key(hana, Permission.INFERENCE)
    _, key = mint_key(hana, Permission.METRICS_READ)
    monkeypatch.setattr("routing.live.cloud_metrics", lambda: b"cloud_requests_total 1.0\n")
    assert with_key(without).get("/api/metrics/cloud").status_code == 403
    for accept in ("*/*", "text/plain", "application/json"):
        answer = with_key(key).get("/api/metrics/cloud", headers={"accept": accept})
        assert (answer.status_code, answer.content) == (200, b"cloud_requests_total 1.0\n")
        assert answer["Content-Type"].startswith("text/plain")
