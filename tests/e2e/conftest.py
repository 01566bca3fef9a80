"""A real browser in front of the real product: one `manage.py serve`, one Chromium, one page a person.

Every page is watched: an error in the console, an exception in a script or a refusal by the CSP fails the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, async_playwright, expect

from nodes.fake_node import FakeNode, running_fake_node
from tests.support.product import Product

PASSWORD: Final = "a long walk along the river"
BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS: Final = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
ROLES: Final = {"hana": "administrator", "ken": "operator", "yui": "viewer"}

OpenPage = Callable[..., Awaitable[Page]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each test here is marked, runs on the one loop that the browser lives on, and beside the others of its kind."""
    for item in items:
        if "tests/e2e/" in item.path.as_posix():
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.xdist_group("e2e"))
            if asyncio.iscoroutinefunction(getattr(item, "function", None)):
                item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


def find_browser() -> str | None:
    """Chromium or Chrome of this machine; LLMLB_TEST_BROWSER may name another."""
    named = os.environ.get("LLMLB_TEST_BROWSER")
    found = (shutil.which(name) for name in BROWSERS)
    return named or next((path for path in found if path), None)


@pytest.fixture(autouse=True)
def _empty_cache() -> None:
    """No Django in this process."""


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    environment = {
        "LLMLB_ADMIN_PASSWORD": PASSWORD,
        "LLMLB_HEALTH_CHECK_INTERVAL": "1",
        "LLMLB_EXCLUSION_PROBE_SECS": "0",
    }
    running = Product(tmp_path_factory.mktemp("e2e"), environment=environment)
    try:
        running.start()
        for name, role in ROLES.items():
            make_person(running, name, role)
        yield running
    finally:
        running.end()


@pytest.fixture
def fake() -> Iterator[FakeNode]:
    with running_fake_node(["model-a", "model-b"]) as node:
        yield node


@pytest.fixture(autouse=True)
def _empty_fleet(product: Product) -> Iterator[None]:
    yield
    for node in product.get("/api/nodes").json()["nodes"]:
        product.request("DELETE", f"/api/nodes/{node['id']}")


CLOSE_SECONDS = 20


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    path = find_browser()
    if path is None:
        pytest.skip("no Chromium or Chrome on this machine: install one, or name it in LLMLB_TEST_BROWSER")
    async with async_playwright() as driver:
        launched = await driver.chromium.launch(executable_path=path, args=FLAGS)
        yield launched
        await launched.close()


@pytest_asyncio.fixture(loop_scope="session")
async def open_page(browser: Browser, product: Product) -> AsyncIterator[OpenPage]:
    """`await open_page("ken", "/nodes/", locale="ja-JP")`: a page in a browser of its own, signed in unless None."""
    contexts: list[BrowserContext] = []
    trouble: list[str] = []

    async def opened(who: str | None, path: str = "/", **options: Any) -> Page:
        context = await browser.new_context(base_url=product.url, **{"locale": "en-US", **options})
        context.set_default_timeout(10_000)
        contexts.append(context)
        watch(context, trouble)
        page = await context.new_page()
        if who is not None:
            await sign_in(page, who)
        await page.goto(path)
        return page

    yield opened
    for context in contexts:
        # Chromium was seen not to answer to this, once, in the middle of a long run; it ends with the browser then.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(context.close(), CLOSE_SECONDS)
    assert not trouble, "\n".join(trouble)


def watch(context: BrowserContext, trouble: list[str]) -> None:
    def heard(message: ConsoleMessage) -> None:
        csp = "Content Security Policy" in message.text or "Content-Security-Policy" in message.text
        if csp or (message.type == "error" and not _is_expected(message)):
            trouble.append(f"{message.type}: {message.text} ({message.location})")

    context.on("console", heard)
    context.on("weberror", lambda error: trouble.append(f"exception: {error.error}"))


def _is_expected(message: ConsoleMessage) -> bool:
    """A page that was asked for and refused is what the test is about; the browser calls it an error all the same."""
    return re.search(r"status of (403|404|422|401)", message.text) is not None


async def sign_in(page: Page, who: str, password: str = PASSWORD) -> None:
    await page.goto("/login")
    await page.get_by_label("User name").or_(page.get_by_label("ユーザー名")).fill(who)
    await page.get_by_label(re.compile("Password|パスワード")).fill(password)
    await page.locator("main form button.is-primary").click()
    await expect(page).not_to_have_url(re.compile("/login"))


def make_person(product: Product, name: str, role: str) -> None:
    """A person with the usual password, as if they had changed the given one already."""
    made = product.post("/api/users", json={"username": name, "role": role})
    assert made.status_code == 201, made.text
    given = made.json()["generated_password"]
    with httpx.Client(base_url=product.url, trust_env=False) as client:
        answer = client.post("/api/auth/login", json={"username": name, "password": given})
        token = answer.json()["token"]
        changed = client.put(
            "/api/auth/change-password",
            json={"current_password": given, "new_password": PASSWORD},
            headers={"Authorization": f"Bearer {token}"},
        )
    assert changed.status_code in {200, 204}, changed.text


@pytest.fixture(scope="session")
def axe() -> str:
    return (Path(__file__).parent / "vendor" / "axe.min.js").read_text()
