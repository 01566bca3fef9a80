"""A model that a node is told to fetch: the bar moves by itself, and the model is there at its end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from playwright.async_api import expect

from nodes.fake_node import Behaviour, FakeNode, running_fake_node
from tests.e2e.conftest import OpenPage
from tests.e2e.test_accessibility import faults
from tests.support.product import Product


@pytest.fixture
def own() -> Iterator[FakeNode]:
    behaviour = Behaviour(download_seconds=6.0, download_bytes=6_000_000_000)
    with running_fake_node(["org/chat"], kind="xllm", behaviour=behaviour) as node:
        yield node


async def test_the_bar_follows_a_download_to_its_end(open_page: OpenPage, product: Product, own: FakeNode) -> None:
    node = product.add_node("own", own.url)
    page = await open_page("ken", f"/nodes/{node['id']}/")
    await page.get_by_role("link", name="Download a model…").click()
    await page.get_by_label("Model", exact=True).fill("org/new")
    await page.get_by_role("main").get_by_role("button", name="Download").click()
    await expect(page.get_by_role("status")).to_contain_text("own fetches org/new.")
    bar = page.locator("#downloads .meter-bar")
    await expect(bar).to_be_visible()
    seen = set()
    while await bar.count():
        seen.add(await page.locator("#downloads .download-figures").first.inner_text())
        await asyncio.sleep(0.2)
    assert len(seen) > 2  # without a reload
    await expect(page.locator("#downloads .badge")).to_have_text("done")
    await expect(page.get_by_role("link", name="org/new")).to_be_visible()


async def test_a_download_is_cancelled(open_page: OpenPage, product: Product, own: FakeNode) -> None:
    own.behaviour = Behaviour(download_seconds=60)
    node = product.add_node("own", own.url)
    product.post(f"/api/nodes/{node['id']}/download", json={"model": "org/new"})
    page = await open_page("ken", f"/nodes/{node['id']}/")
    await page.get_by_role("button", name="Cancel org/new").click()
    await expect(page.locator("#downloads .badge")).to_have_text("cancelled")


async def test_a_viewer_watches(open_page: OpenPage, product: Product, own: FakeNode) -> None:
    node = product.add_node("own", own.url)
    page = await open_page("yui", f"/nodes/{node['id']}/")
    product.post(f"/api/nodes/{node['id']}/download", json={"model": "org/new"})
    await expect(page.locator("#downloads .meter-bar")).to_be_visible()
    await expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
    await expect(page.get_by_role("link", name="Download a model…")).to_have_count(0)


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_nothing_serious_on_these_pages(
    open_page: OpenPage, product: Product, own: FakeNode, axe: str, theme: str
) -> None:
    own.behaviour = Behaviour(download_seconds=60)
    own.own.loaded = ["org/chat"]
    node = product.add_node("own", own.url)
    for model in ("org/new", "no-repository"):
        product.post(f"/api/nodes/{node['id']}/download", json={"model": model})
    page = await open_page("ken", f"/nodes/{node['id']}/", color_scheme=theme)
    await expect(page.locator("#downloads .meter-bar")).to_be_visible()
    await expect(page.locator("#downloads .badge.is-error")).to_be_visible()
    assert await faults(page, axe) == []
    for path in ("download", "models/delete", "logs"):
        await page.goto(f"/nodes/{node['id']}/{path}")
        assert await faults(page, axe) == [], path
