"""Cloud providers: whose key counts, where it may go, and the lists that are kept a day and served stale."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from access.audit import Actor
from access.models import AuditEvent, User
from access.refusals import Invalid, Refusal
from llmlb_site.lib.config import CLOUD_VARIABLES, CloudAccess, read_cloud
from llmlb_site.lib.models import Revision
from llmlb_site.lib.node_addresses import AddressRefused, BadBaseUrl
from models_catalog import checks, listing, services
from models_catalog.models import CloudProvider
from models_catalog.providers import normalise_provider_url, read_list
from models_catalog.queries import ProviderState, provider_states
from models_catalog.tasks import refresh_providers
from nodes.background import background
from tests.support.fake_provider import KEY, LISTS, FakeProvider

StartProvider = Callable[[str], FakeProvider]


@contextmanager
def _own_loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join(timeout=5)
    loop.close()


@pytest.fixture
def start_provider() -> Iterator[StartProvider]:
    """`start_provider("google")`: a provider on a real socket, beside the test's own thread."""
    started: list[FakeProvider] = []
    with _own_loop() as loop:

        def start(name: str) -> FakeProvider:
            fake = FakeProvider(name)
            asyncio.run_coroutine_threadsafe(fake.start(), loop).result(timeout=5)
            started.append(fake)
            return fake

        yield start
        for fake in started:
            asyncio.run_coroutine_threadsafe(fake.stop(), loop).result(timeout=5)


@pytest.fixture
def actor(ken: User) -> Actor:
    return Actor.user(ken)


def state_of(name: str) -> ProviderState:
    return next(state for state in provider_states() if state.name == name)


def ids_of(name: str) -> list[str]:
    return [model["id"] for model in state_of(name).models]


# --- addresses and the environment ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "url"),
    [
        ("openai", "https://api.openai.com/v1/", "https://api.openai.com"),
        ("openai", "proxy.example.org:8443/openai/v1", "https://proxy.example.org:8443/openai"),
        ("google", "https://generativelanguage.googleapis.com/v1beta", "https://generativelanguage.googleapis.com"),
        ("google", "http://127.0.0.1:9/v1beta/", "http://127.0.0.1:9"),
        ("anthropic", "API.anthropic.com", "https://api.anthropic.com"),
    ],
)
def test_one_spelling_and_https_unless_said(name: str, text: str, url: str) -> None:
    assert normalise_provider_url(name, text) == url


@pytest.mark.parametrize("text", ["ftp://x", "http://u:p@x", "x?y=z", "169.254.169.254", "http://0x7f000001/#a", ""])
def test_addresses_that_no_provider_has(text: str) -> None:
    with pytest.raises(BadBaseUrl):
        normalise_provider_url("openai", text)


def test_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "key").write_text("from-a-file\n")
    monkeypatch.setenv("GOOGLE_API_KEY_FILE", str(tmp_path / "key"))
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    read = read_cloud()
    assert read["google"] == CloudAccess("from-a-file", "")
    assert read["openai"] == CloudAccess("", "http://127.0.0.1:9/v1")
    assert "from-a-file" not in repr(read)


def test_an_address_in_the_environment_that_cannot_be_used_is_said(settings: Any) -> None:
    assert checks.check_provider_addresses(None) == []
    settings.CLOUD = {"google": CloudAccess("k", "http://169.254.169.254")}
    (error,) = checks.check_provider_addresses(None)
    assert error.id == "llmlb.models_catalog.E001"
    assert CLOUD_VARIABLES["google"][1] in error.msg


# --- whose key counts -------------------------------------------------------------------------------------------------


@pytest.mark.django_db
class TestKeys:
    def test_nothing_is_configured_at_first(self) -> None:
        assert [(state.name, state.configured) for state in provider_states()] == [
            ("openai", False),
            ("google", False),
            ("anthropic", False),
        ]

    def test_the_database_wins_over_the_environment(self, settings: Any, actor: Actor) -> None:
        settings.CLOUD = {"openai": CloudAccess("env-key", "http://10.0.0.1/v1")}
        state = state_of("openai")
        assert (state.api_key, state.base_url, state.source) == ("env-key", "http://10.0.0.1", "environment")
        services.set_provider(name="openai", actor=actor, api_key="db-key")
        state = state_of("openai")
        assert (state.api_key, state.base_url, state.source) == ("db-key", "http://10.0.0.1", "database")
        services.set_provider(name="openai", actor=actor, api_key="db-key", base_url="http://10.0.0.2")
        assert state_of("openai").base_url == "http://10.0.0.2"
        services.set_provider(name="openai", actor=actor, enabled=False)
        assert not state_of("openai").configured
        assert "db-key" not in repr(state)

    def test_a_key_never_goes_to_another_address(self, settings: Any, actor: Actor) -> None:
        """Who may change the address, but does not know the key, cannot have it sent to them."""
        settings.CLOUD = {"openai": CloudAccess("env-key", "")}
        with pytest.raises(Invalid) as refused:
            services.set_provider(name="openai", actor=actor, base_url="http://10.0.0.66")
        assert refused.value.field == "api_key"
        services.set_provider(name="openai", actor=actor, api_key="db-key", base_url="http://10.0.0.2")
        with pytest.raises(Invalid):
            services.set_provider(name="openai", actor=actor, base_url="http://10.0.0.66")
        services.set_provider(name="openai", actor=actor, api_key="")
        state = state_of("openai")
        assert (state.api_key, state.base_url) == ("env-key", "https://api.openai.com")

    @pytest.mark.parametrize(
        "values",
        [
            {"name": "nobody"},
            {"name": "openai", "api_key": "with space"},
            {"name": "openai", "api_key": "k", "base_url": "http://169.254.169.254"},
            {"name": "openai", "api_key": "k", "base_url": "http://user:pw@host"},
        ],
    )
    def test_what_cannot_be_set(self, actor: Actor, values: dict[str, Any]) -> None:
        with pytest.raises(Refusal):
            services.set_provider(actor=actor, **values)
        assert not CloudProvider.objects.exists()

    def test_it_is_kept_encrypted_audited_and_told(self, actor: Actor) -> None:
        services.set_provider(name="openai", actor=actor, api_key="db-key")
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute("select api_key from models_catalog_cloudprovider")
            assert "db-key" not in cursor.fetchone()[0]
        event = AuditEvent.objects.get(action="provider.set")
        assert "db-key" not in str(event.details)
        assert event.details["has_key"] is True
        assert Revision.objects.get(topic="models").number == 1


# --- lists ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("document", [None, [], {}, {"data": 1}, {"data": [1]}, {"models": [{}]}, {"data": [{"x": 1}]}])
def test_what_is_no_list(name: str, document: Any) -> None:
    assert read_list(name, document) is None


def test_what_of_a_list_is_kept() -> None:
    assert read_list("google", LISTS["google"]) == [
        {"id": "gemini-2.5-flash", "context_length": 1048576},
        {"id": "gemini-embedding-001"},
    ]
    doubled = {"data": [{"id": "a"}, {"id": "a", "created": 1}, {"id": ""}, {"id": "x\n"}]}
    assert read_list("openai", doubled) == [{"id": "a", "created": 1}]
    (claude,) = read_list("anthropic", LISTS["anthropic"]) or []
    assert claude == {"id": "claude-sonnet-4-5", "created": 1759104000}


def set_up(actor: Actor, *fakes: FakeProvider) -> None:
    for fake in fakes:
        services.set_provider(name=fake.name, actor=actor, api_key=KEY, base_url=fake.url)


def refresh() -> int:
    count = refresh_providers()
    assert background().wait_idle(timeout=20)
    return count


@pytest.mark.django_db(transaction=True)
class TestLists:
    def test_read_at_once_and_then_kept_for_a_day(self, actor: Actor, start_provider: StartProvider) -> None:
        fake = start_provider("google")
        set_up(actor, fake)
        assert refresh() == 1
        assert ids_of("google") == ["gemini-2.5-flash", "gemini-embedding-001"]
        assert refresh() == 0
        CloudProvider.objects.update(models_at=timezone.now() - listing.KEEP, last_checked=timezone.now())
        assert refresh() == 0, "just tried"
        CloudProvider.objects.update(last_checked=timezone.now() - listing.RETRY)
        assert refresh() == 1
        assert len(fake.seen) == 2

    def test_one_that_is_down_hides_no_other_and_its_list_stays(
        self, actor: Actor, start_provider: StartProvider
    ) -> None:
        fakes = [start_provider(name) for name in ("openai", "google", "anthropic")]
        set_up(actor, *fakes)
        assert refresh() == 3
        fakes[0].models_status = 503
        fakes[1].models = {"error": "nothing of a list"}
        fakes[2].models = {"data": [{"id": "claude-next"}]}
        CloudProvider.objects.update(models_at=None, last_checked=timezone.now() - timedelta(hours=1))
        assert refresh() == 3
        assert ids_of("openai") == ["gpt-4o", "text-embedding-3-small"]
        assert ids_of("google") == ["gemini-2.5-flash", "gemini-embedding-001"]
        assert ids_of("anthropic") == ["claude-next"]
        assert "503" in state_of("openai").last_error
        assert "not a list" in state_of("google").last_error
        assert state_of("anthropic").last_error == ""
        assert not any(fake.url.removeprefix("http://") in state_of(fake.name).last_error for fake in fakes)

    def test_one_that_is_slow_is_given_up(
        self, actor: Actor, start_provider: StartProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        slow, quick = start_provider("openai"), start_provider("google")
        slow.models_latency = 30
        monkeypatch.setattr(listing, "TIMEOUT_SECONDS", 0.5)
        set_up(actor, slow, quick)
        refresh()
        assert "in time" in state_of("openai").last_error
        assert ids_of("google")

    def test_an_answer_for_an_old_key_is_not_kept(self, actor: Actor, start_provider: StartProvider) -> None:
        fake = start_provider("openai")
        set_up(actor, fake)
        before = state_of("openai")
        services.set_provider(name="openai", actor=actor, api_key="another", base_url=fake.url)
        listing.record_listing(before, listing.Listing([{"id": "of-the-old-account"}]))
        assert ids_of("openai") == []
        assert refresh() == 1
        assert "does not accept the key" in state_of("openai").last_error

    def test_the_environments_key_needs_no_row(self, settings: Any, start_provider: StartProvider) -> None:
        fake = start_provider("anthropic")
        settings.CLOUD = {"anthropic": CloudAccess(KEY, fake.url)}
        assert refresh() == 1
        assert ids_of("anthropic") == ["claude-sonnet-4-5"]

    def test_asking_now(self, actor: Actor, start_provider: StartProvider) -> None:
        with pytest.raises(Invalid):
            services.refresh_provider(name="openai", actor=actor)
        with pytest.raises(services.NoSuchEntry):
            services.refresh_provider(name="nobody", actor=actor)
        set_up(actor, start_provider("openai"))
        found = services.refresh_provider(name="openai", actor=actor)
        assert found.models is not None
        assert ids_of("openai") == ["gpt-4o", "text-embedding-3-small"]


# --- the admin --------------------------------------------------------------------------------------------------------

LIST = "admin:models_catalog_cloudprovider_changelist"


@pytest.mark.django_db(transaction=True)
class TestAdmin:
    @pytest.fixture
    def browser(self, ken: User, signed_in: Callable[[User], Client]) -> Client:
        return signed_in(ken)

    def change(self, browser: Client, name: str, **values: Any) -> Any:
        browser.get(reverse(LIST))  # makes the rows
        row = CloudProvider.objects.get(name=name)
        url = reverse("admin:models_catalog_cloudprovider_change", args=[row.pk])
        return browser.post(url, {"enabled": "on", "base_url": "", **values}, follow=True)

    def test_three_rows_that_nobody_adds_or_deletes(self, browser: Client) -> None:
        page = browser.get(reverse(LIST)).content.decode()
        assert page.count("not configured") == 3
        assert browser.get(reverse("admin:models_catalog_cloudprovider_add")).status_code == 403
        row = CloudProvider.objects.get(name="openai")
        assert browser.get(reverse("admin:models_catalog_cloudprovider_delete", args=[row.pk])).status_code == 403

    def test_a_key_is_set_and_never_shown(self, browser: Client) -> None:
        answer = self.change(browser, "openai", api_key="the-key-itself")
        assert answer.status_code == 200
        assert state_of("openai").api_key == "the-key-itself"
        row = CloudProvider.objects.get(name="openai")
        url = reverse("admin:models_catalog_cloudprovider_change", args=[row.pk])
        for page in (answer, browser.get(url), browser.get(reverse(LIST))):
            assert "the-key-itself" not in page.content.decode()
        assert "set here" in browser.get(reverse(LIST)).content.decode()
        self.change(browser, "openai")
        assert state_of("openai").api_key == "the-key-itself", "an empty field changes nothing"
        self.change(browser, "openai", remove_api_key="on")
        assert state_of("openai").source == ""
        assert AuditEvent.objects.filter(action="provider.set", actor="ken").count() == 3

    def test_a_refusal_is_shown(self, browser: Client) -> None:
        page = self.change(browser, "openai", api_key="k", base_url="http://169.254.169.254").content.decode()
        assert "link-local" in page
        assert state_of("openai").source == ""

    def test_testing_the_key(self, browser: Client, actor: Actor, start_provider: StartProvider) -> None:
        good, bad = start_provider("google"), start_provider("openai")
        set_up(actor, good)
        services.set_provider(name="openai", actor=actor, api_key="wrong", base_url=bad.url)
        browser.get(reverse(LIST))
        rows = list(CloudProvider.objects.values_list("pk", flat=True))
        data = {"action": "refresh_models", "_selected_action": rows}
        page = browser.post(reverse(LIST), data, follow=True).content.decode()
        assert "Google: 2 models." in page
        assert "OpenAI: It does not accept the key" in page
        assert "Anthropic: This provider has no key" in page

    def test_a_viewer_has_no_part_in_it(self, yui: User, signed_in: Callable[[User], Client]) -> None:
        assert signed_in(yui).get(reverse(LIST)).status_code in {302, 403}


def test_refused_addresses_are_refused_by_kind() -> None:
    with pytest.raises(AddressRefused):
        normalise_provider_url("google", "metadata.google.internal")
