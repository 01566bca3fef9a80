"""History in the browser: requests appear by themselves, are paged and filtered, and lead to their detail."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.async_api import expect

from nodes.fake_node import FakeNode, running_fake_node
from tests.e2e.conftest import OpenPage
from tests.e2e.test_nodes import ask
from tests.support.product import Product


@pytest.fixture
def paged() -> Iterator[FakeNode]:
    """Its models have names of their own, so that a filter finds the requests of this test alone."""
    with running_fake_node(["paged-a", "paged-b", "alone"]) as node:
        yield node


async def test_a_request_appears_by_itself_and_leads_to_its_detail(
    open_page: OpenPage, product: Product, paged: FakeNode
) -> None:
    product.add_node("history-node", paged.url)
    page = await open_page("ken", "/history/")
    await expect(page.locator("#live-state")).to_have_text("Live")
    assert await ask(product, "alone") == 200
    row = page.get_by_role("row").filter(has_text="alone").first
    await expect(row).to_be_visible(timeout=4000)
    await row.get_by_role("link").first.click()
    await expect(page.get_by_role("heading", name=re.compile(r"Request \d+"))).to_be_visible()
    await expect(page.get_by_role("heading", name="Attempts")).to_be_visible()


async def test_pages_and_filters(open_page: OpenPage, product: Product, paged: FakeNode) -> None:
    product.add_node("history-node", paged.url)
    for _number in range(12):
        assert await ask(product, "paged-a") == 200
    assert await ask(product, "paged-b") == 200
    page = await open_page("ken", "/history/?model=paged-a&per_page=10")
    rows = page.locator("#requests tbody tr")
    await expect(rows).to_have_count(10)
    await expect(page.locator(".pager")).to_contain_text(re.compile(r"1 / 2"))
    await page.get_by_role("link", name=re.compile("Next|Older")).click()
    await expect(page.locator(".pager")).to_contain_text(re.compile(r"2 / 2"))
    await expect(rows).to_have_count(2)
    await page.goto("/history/?model=paged-b")
    await expect(rows).to_have_count(1)


async def test_a_filter_that_is_not_understood_is_told(open_page: OpenPage) -> None:
    page = await open_page("ken", "/history/")
    await page.get_by_label("Status").fill("9xx")
    told = page.get_by_role("alert")
    await expect(told).to_have_text("Left out of the filters: Status. A status like 503, or a class like 4xx.")
    await page.get_by_label("Status").fill("4xx")
    await expect(told).to_have_count(0)
