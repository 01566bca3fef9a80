"""Nodes by hand: added, drained, re-included, deleted; and seen by another tab within a second."""

from __future__ import annotations

import asyncio
import re

import httpx
from playwright.async_api import Page, expect

from nodes.fake_node import FakeNode
from tests.e2e.conftest import OpenPage
from tests.support.product import Product

SECOND = 1000


async def add_node(page: Page, name: str, url: str) -> None:
    await page.goto("/nodes/")
    await page.get_by_role("main").get_by_role("link", name="Add node").first.click()
    await page.get_by_label("Base URL").fill(url)
    await page.get_by_label("Name", exact=True).fill(name)
    await page.get_by_role("main").get_by_role("button", name="Add node").click()


async def ask(product: Product, model: str) -> int:
    """One chat request, without holding up the loop that the browser lives on."""
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
    async with httpx.AsyncClient(base_url=product.url, trust_env=False, headers=product.headers) as client:
        return (await client.post("/v1/chat/completions", json=body)).status_code


async def test_a_node_is_added_and_its_models_appear(open_page: OpenPage, fake: FakeNode) -> None:
    page = await open_page("ken")
    await expect(page.get_by_text("Three steps to the first answer")).to_be_visible()
    await add_node(page, "left", fake.url)
    await expect(page.get_by_role("status")).to_contain_text("left is registered with 2 models.")
    await expect(page.locator(".badge").first).to_have_text("online")
    await expect(page.get_by_role("link", name="model-a")).to_be_visible()
    await page.get_by_role("link", name="Models", exact=True).click()
    await expect(page.get_by_role("rowheader", name="model-b")).to_be_visible()


async def test_what_is_refused_is_said_beside_the_field(open_page: OpenPage) -> None:
    page = await open_page("ken")
    await add_node(page, "left", "ftp://example.org")
    field = page.get_by_label("Base URL")
    await expect(field).to_have_attribute("aria-invalid", "true")
    await expect(field).to_have_value("ftp://example.org")


async def test_draining_and_resuming(open_page: OpenPage, product: Product, fake: FakeNode) -> None:
    node = product.add_node("left", fake.url)
    page = await open_page("ken", f"/nodes/{node['id']}/")
    await page.get_by_role("button", name="Drain").click()
    await expect(page.get_by_role("status")).to_contain_text("left takes no new requests")
    await expect(page.locator(".badge.is-draining").first).to_be_visible()
    await expect(page.get_by_role("button", name="Drain")).to_have_count(0)
    assert await ask(product, "model-a") == 503
    await page.get_by_role("button", name="Resume").click()
    await expect(page.get_by_role("button", name="Drain")).to_be_visible()


async def test_another_tab_sees_a_change_within_a_second(open_page: OpenPage, product: Product, fake: FakeNode) -> None:
    node = product.add_node("left", fake.url)
    watching = await open_page("yui", "/nodes/")
    await expect(watching.locator("#live-state")).to_have_text("Live")
    acting = await open_page("ken", f"/nodes/{node['id']}/")
    await acting.get_by_role("button", name="Drain").click(no_wait_after=True)
    await expect(watching.locator(".badge.is-draining")).to_be_visible(timeout=SECOND)


async def test_a_failing_model_shows_up_live_and_is_put_back(
    open_page: OpenPage, product: Product, fake: FakeNode
) -> None:
    product.add_node("left", fake.url)
    fake.behaviour.status = 500
    page = await open_page("ken")
    await expect(page.locator("#live-state")).to_have_text("Live")
    assert await ask(product, "model-a") >= 500
    await expect(page.get_by_role("heading", name="Excluded models")).to_be_visible(timeout=2 * SECOND)
    fake.behaviour.status = 200
    await page.get_by_role("button", name="Re-include model-a").click()
    await expect(page.get_by_role("status")).to_contain_text("1 model is back in routing on left.")
    await expect(page.get_by_role("heading", name="Excluded models")).to_have_count(0)


async def test_a_node_that_dies_and_comes_back_is_seen(open_page: OpenPage, product: Product, fake: FakeNode) -> None:
    product.add_node("left", fake.url)
    page = await open_page("yui", "/nodes/")
    fake.behaviour.mode = "refuse_models"
    await expect(page.locator(".badge.is-offline, .badge.is-error")).to_be_visible(timeout=10 * SECOND)
    fake.behaviour.mode = "ok"
    await expect(page.locator(".badge.is-online")).to_be_visible(timeout=10 * SECOND)


async def test_deleting_asks_and_escape_closes_the_question(
    open_page: OpenPage, product: Product, fake: FakeNode
) -> None:
    node = product.add_node("left", fake.url)
    page = await open_page("ken", f"/nodes/{node['id']}/")
    await page.get_by_text("More", exact=True).click()
    await page.get_by_role("link", name="Delete…").click()
    question = page.get_by_role("dialog", name="Delete left?")
    await expect(question).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(question).to_be_hidden()
    await page.get_by_role("link", name="Delete…").click()
    await question.get_by_role("button", name="Delete node").click()
    await expect(page).to_have_url(re.compile(r"/nodes/$"))
    await expect(page.get_by_text("No nodes yet")).to_be_visible()


async def test_the_list_is_narrowed_while_typing_and_can_be_linked_to(
    open_page: OpenPage, product: Product, fake: FakeNode
) -> None:
    product.add_node("left", fake.url)
    page = await open_page("yui", "/nodes/")
    await page.get_by_label("Search").fill("nothing like it")
    await expect(page.get_by_text("No node fits")).to_be_visible()
    await expect(page).to_have_url(re.compile(r"q=nothing"))
    await page.get_by_label("Search").fill("LEF")
    await expect(page.get_by_role("link", name="left")).to_be_visible()
    await page.reload()
    await expect(page.get_by_label("Search")).to_have_value("LEF")
    await page.go_back()
    await expect(page.locator("html")).to_be_visible()


async def test_without_its_socket_a_page_asks_every_five_seconds(
    open_page: OpenPage, product: Product, fake: FakeNode
) -> None:
    node = product.add_node("left", fake.url)
    page = await open_page("yui")
    await page.context.route_web_socket(
        re.compile("/ws/dashboard"), lambda socket: asyncio.ensure_future(socket.close())
    )
    await page.goto("/nodes/")
    await expect(page.locator("#live-state")).to_have_text("Every 5 s")
    product.post(f"/api/nodes/{node['id']}/drain")
    await expect(page.locator(".badge.is-draining")).to_be_visible(timeout=7 * SECOND)
