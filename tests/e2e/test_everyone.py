"""For everyone: roles, keyboard, no script, narrow screens, theme and language."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Page, expect

from nodes.fake_node import FakeNode
from tests.e2e.conftest import OpenPage
from tests.e2e.test_nodes import ask
from tests.support.product import Product

PAGES = ["/", "/nodes/", "/models/", "/keys/"]


async def test_a_viewer_sees_no_button_that_is_not_theirs(
    open_page: OpenPage, product: Product, fake: FakeNode
) -> None:
    node = product.add_node("left", fake.url)
    page = await open_page("yui")
    navigation = page.get_by_role("navigation", name="Main")
    await expect(navigation.get_by_role("link")).to_have_text(["Overview", "Nodes", "Models", "Keys"])
    await page.goto(f"/nodes/{node['id']}/")
    for name in ("Drain", "Sync now", "Test", "Edit", "More"):
        await expect(page.get_by_role("main").get_by_text(name, exact=True)).to_have_count(0)
    answer = await page.goto("/nodes/add")
    assert answer is not None
    assert answer.status == 403
    await expect(page.get_by_text("You may not do this")).to_be_visible()


async def test_an_administrator_finds_everything(open_page: OpenPage) -> None:
    page = await open_page("hana")
    links = page.get_by_role("navigation", name="Main").get_by_role("link")
    await expect(links).to_have_text(["Overview", "Nodes", "Models", "History", "Keys", "Users", "Admin"])
    for name in ("Nodes", "Models", "History", "Keys", "Users"):
        await links.get_by_text(name).click()
        await expect(links.get_by_text(name)).to_have_attribute("aria-current", "page")


async def test_a_node_is_added_by_keyboard_alone(open_page: OpenPage, fake: FakeNode) -> None:
    page = await open_page("ken")
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    await page.keyboard.press("Enter")
    await tab_to(page, "Add node")
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(re.compile("/nodes/add"))
    await tab_to_id(page, "id_base_url")
    await page.keyboard.type(fake.url)
    await page.keyboard.press("Tab")
    await page.keyboard.type("by keyboard")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="by keyboard")).to_be_visible()
    await tab_to(page, "More")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("button", name="Re-register")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("button", name="Re-register")).to_be_hidden()


async def tab_to(page: Page, text: str) -> None:
    await tab_until(page, "text => document.activeElement.textContent.trim() === text", text)


async def tab_to_id(page: Page, wanted: str) -> None:
    await tab_until(page, "id => document.activeElement.id === id", wanted)


async def tab_until(page: Page, reached: str, argument: str) -> None:
    for _step in range(40):
        await page.keyboard.press("Tab")
        if await page.evaluate(reached, argument):
            return
    raise AssertionError(f"{argument} cannot be reached with the Tab key")


async def test_focus_stays_where_it_is_when_the_page_updates(
    open_page: OpenPage, product: Product, fake: FakeNode
) -> None:
    node = product.add_node("left", fake.url)
    page = await open_page("ken", f"/nodes/{node['id']}/")
    await expect(page.locator("#live-state")).to_have_text("Live")
    await page.locator("#do-sync").focus()
    product.post(f"/api/nodes/{node['id']}/drain")
    await expect(page.get_by_role("button", name="Resume")).to_be_visible()
    await expect(page.locator("#do-sync")).to_be_focused()


async def test_what_was_opened_stays_open_when_the_page_updates(
    open_page: OpenPage, product: Product, fake: FakeNode
) -> None:
    node = product.add_node("left", fake.url)
    page = await open_page("yui")
    await expect(page.locator("#live-state")).to_have_text("Live")
    await page.get_by_text("As a table").click()
    product.post(f"/api/nodes/{node['id']}/drain")
    await expect(page.locator(".badge.is-draining")).to_be_visible()
    await expect(page.locator("#traffic-table")).to_have_attribute("open", "")


async def test_the_theme_is_kept_and_the_admin_agrees(open_page: OpenPage) -> None:
    page = await open_page("ken", color_scheme="light")
    root, toggle = page.locator("html"), page.locator(".theme-toggle").first
    await expect(root).to_have_attribute("data-theme", "auto")
    light = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    await toggle.click()
    await expect(root).to_have_attribute("data-theme", "dark")
    assert await page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    await page.goto("/nodes/")
    await expect(root).to_have_attribute("data-theme", "dark")
    await page.goto("/admin/")
    await expect(root).to_have_attribute("data-theme", "dark")


async def test_the_language_is_kept(open_page: OpenPage) -> None:
    page = await open_page("ken")
    await page.get_by_label("Language").select_option("ja")
    await expect(page.locator("html")).to_have_attribute("lang", "ja")
    await expect(page.get_by_role("heading", level=1)).to_have_text("概要")
    await page.goto("/nodes/")
    await expect(page.get_by_role("heading", level=1)).to_have_text("ノード")


async def test_the_browsers_language_is_followed(open_page: OpenPage) -> None:
    page = await open_page(None, "/login", locale="ja-JP")
    await expect(page.locator("html")).to_have_attribute("lang", "ja")


async def test_everything_works_without_script(open_page: OpenPage, fake: FakeNode) -> None:
    page = await open_page("ken", "/nodes/add", java_script_enabled=False)
    await page.get_by_label("Base URL").fill(fake.url)
    await page.get_by_label("Name", exact=True).fill("left")
    await page.get_by_role("main").get_by_role("button", name="Add node").click()
    await page.get_by_role("button", name="Drain").click()
    await expect(page.get_by_role("status")).to_contain_text("left takes no new requests")
    await page.get_by_text("More", exact=True).click()
    await page.get_by_role("link", name="Delete…").click()
    await page.get_by_role("button", name="Delete node").click()
    await expect(page.get_by_role("status")).to_contain_text("left is deleted")
    await expect(page.locator(".theme-toggle")).to_be_hidden()
    await page.get_by_label("Language").select_option("ja")
    await page.get_by_role("button", name="Change").click()
    await expect(page.locator("html")).to_have_attribute("lang", "ja")


@pytest.mark.parametrize("width", [360, 390, 768, 1280])
async def test_no_page_is_wider_than_its_screen(
    open_page: OpenPage, product: Product, fake: FakeNode, width: int
) -> None:
    fake.models = ["meta-llama/Llama-3.1-405B-Instruct-with-a-very-long-name-that-nobody-would-choose"]
    node = product.add_node("a-node-with-a-name-that-is-as-long-as-names-can-reasonably-be", fake.url)
    page = await open_page("hana", viewport={"width": width, "height": 800})
    for path in [*PAGES, "/history/", "/users/", "/nodes/add", f"/nodes/{node['id']}/", f"/nodes/{node['id']}/change"]:
        await page.goto(path)
        assert await page.evaluate("document.documentElement.scrollWidth") <= width, path


@pytest.mark.parametrize("width", [1024, 1280, 1440])
@pytest.mark.parametrize("locale", ["en-US", "ja-JP"])
async def test_no_column_of_a_table_is_beyond_its_edge(
    open_page: OpenPage, product: Product, fake: FakeNode, width: int, locale: str
) -> None:
    fake.models = ["meta-llama/Llama-3.1-70B-Instruct", "Qwen/Qwen2.5-Coder-32B"]
    node = product.add_node("own-node.lab.example", fake.url)
    await ask(product, "Qwen/Qwen2.5-Coder-32B")
    page = await open_page("hana", viewport={"width": width, "height": 800}, locale=locale)
    for path in [*PAGES, "/history/", "/users/", f"/nodes/{node['id']}/"]:
        await page.goto(path)
        beyond = await page.locator(".table-wrap").evaluate_all("all => all.map(e => e.scrollWidth - e.clientWidth)")
        assert max(beyond, default=0) <= 1, path


async def test_on_a_phone_the_entry_of_the_page_is_in_sight(open_page: OpenPage) -> None:
    page = await open_page("hana", "/users/", viewport={"width": 390, "height": 800})
    await expect(page.locator(".nav [aria-current]")).to_be_in_viewport(ratio=1)


async def test_every_limit_of_a_key_can_be_reached_in_the_admin(open_page: OpenPage) -> None:
    page = await open_page("hana", "/admin/access/apikey/add/", viewport={"width": 1280, "height": 900})
    last = page.locator("#id_limits-0-tokens_per_month")
    await last.scroll_into_view_if_needed()
    await expect(last).to_be_in_viewport(ratio=1)
    assert await last.evaluate(CUTS_OFF) == []


# A person cannot scroll what hides its overflow, though a script can.
CUTS_OFF = """field => {
  const found = [];
  for (let part = field.parentElement; part; part = part.parentElement) {
    const hidden = getComputedStyle(part).overflowX === "hidden";
    if (hidden && part.scrollWidth > part.clientWidth + 1) found.push(part.className);
  }
  return found;
}"""
