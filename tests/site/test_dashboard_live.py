"""Live hints: who may listen, that events from any thread arrive, bursts are few, and a sign-out closes the socket."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.routing import URLRouter
from channels.testing import WebsocketCommunicator
from django.test import Client

from access.models import User
from llmlb_site.dashboard.websockets import Hints, websocket_urlpatterns
from llmlb_site.lib.events import deliver

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
async def hints() -> AsyncIterator[Hints]:
    running = Hints()
    running.start(asyncio.get_running_loop())
    yield running
    running.stop()


def socket(browser: Client | None, *, origin: str = "http://testserver", path: str = "/ws/dashboard") -> Any:
    cookie = f"llmlb_session={browser.cookies['llmlb_session'].value}" if browser else ""
    headers = [(b"host", b"testserver"), (b"origin", origin.encode()), (b"cookie", cookie.encode())]
    return WebsocketCommunicator(URLRouter(websocket_urlpatterns), path, headers=headers)


async def opened(browser: Client) -> Any:
    made = socket(browser)
    assert (await made.connect())[0]
    assert await made.receive_json_from() == {"type": "connected"}
    return made


def publish(*topics: str) -> None:
    """As a worker does: from a thread that has no loop."""

    def send() -> None:
        for topic in topics:
            deliver(topic, {}, from_elsewhere=False)

    thread = threading.Thread(target=send)
    thread.start()
    thread.join()


@pytest.fixture
def browser(yui: User) -> Client:
    made = Client()
    made.force_login(yui)
    return made


async def test_an_event_in_another_thread_is_a_hint_at_once(browser: Client, hints: Hints) -> None:
    open_page = await opened(browser)
    began = time.monotonic()
    await sync_to_async(publish)("nodes")
    hint = await open_page.receive_json_from(timeout=1)
    assert hint == {"topic": "nodes", "rev": 1}
    assert time.monotonic() - began < 0.5
    await open_page.disconnect()


async def test_a_burst_is_few_hints_and_its_last_event_is_not_lost(browser: Client, hints: Hints) -> None:
    open_page = await opened(browser)
    await sync_to_async(publish)(*["nodes"] * 200)
    seen = [await open_page.receive_json_from(timeout=2)]
    while seen[-1]["rev"] < 200:
        seen.append(await open_page.receive_json_from(timeout=2))
    assert len(seen) <= 3
    assert await open_page.receive_nothing(0.4)
    await open_page.disconnect()


async def test_topics_do_not_wait_for_each_other(browser: Client, hints: Hints) -> None:
    open_page = await opened(browser)
    await sync_to_async(publish)("nodes", "exclusions", "history")
    topics = {(await open_page.receive_json_from(timeout=2))["topic"] for _ in range(3)}
    assert topics == {"nodes", "exclusions", "history"}
    await open_page.disconnect()


@pytest.mark.parametrize("origin", ["http://evil.example", "", "http://testserver.evil.example", "null"])
async def test_a_page_of_someone_else_may_not_listen(browser: Client, origin: str) -> None:
    assert not (await socket(browser, origin=origin).connect())[0]


async def test_nobody_may_listen_unsigned(db: None) -> None:
    assert not (await socket(None).connect())[0]


@pytest.mark.parametrize("path", ["/ws/", "/ws/nothing", "/v1/chat/completions"])
async def test_an_address_that_has_no_socket_is_refused_like_any_other(browser: Client, path: str) -> None:
    assert not (await socket(browser, path=path).connect())[0]


async def test_a_key_or_token_in_the_address_means_nothing(db: None) -> None:
    assert not (await socket(None, path="/ws/dashboard?token=abc").connect())[0]


async def test_who_must_change_their_password_may_not_listen(browser: Client, yui: User) -> None:
    await User.objects.filter(pk=yui.pk).aupdate(must_change_password=True)
    assert not (await socket(browser).connect())[0]


@pytest.mark.parametrize("how", ["signed out", "deactivated", "new password"])
async def test_the_socket_closes_when_its_person_may_no_longer_look(
    browser: Client, yui: User, hints: Hints, how: str
) -> None:
    open_page = await opened(browser)
    if how == "signed out":
        await sync_to_async(browser.logout)()
    elif how == "deactivated":
        await User.objects.filter(pk=yui.pk).aupdate(is_active=False)
    else:
        yui.set_password("another long walk, by night")
        await yui.asave()
    await sync_to_async(publish)("nodes")
    closed = await open_page.receive_output(timeout=2)
    assert (closed["type"], closed["code"]) == ("websocket.close", 4401)


async def test_what_a_page_sends_is_ignored(browser: Client, hints: Hints) -> None:
    open_page = await opened(browser)
    await open_page.send_to(text_data="not json")
    await sync_to_async(publish)("models")
    assert (await open_page.receive_json_from(timeout=1))["topic"] == "models"
    await open_page.disconnect()


async def test_after_the_stop_nothing_is_sent(browser: Client, hints: Hints) -> None:
    open_page = await opened(browser)
    hints.stop()
    await sync_to_async(publish)("nodes")
    assert await open_page.receive_nothing(0.3)
    await open_page.disconnect()
