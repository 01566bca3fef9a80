"""A key's page: limits are set there, and what is used of them is seen without reloading."""

from __future__ import annotations

import re

import httpx
import pytest
from playwright.async_api import expect

from nodes.fake_node import FakeNode
from tests.e2e.conftest import OpenPage
from tests.support.product import Product, wait_until


def mint(product: Product, name: str) -> dict[str, object]:
    answer = product.post("/api/api-keys", json={"name": name, "permissions": ["openai.inference"]})
    assert answer.status_code == 201, answer.text
    found: dict[str, object] = answer.json()
    return found


def ask(product: Product, key: object) -> int:
    body = {"model": "model-a", "messages": [{"role": "user", "content": "hello"}]}
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.post(f"{product.url}/v1/chat/completions", json=body, headers=headers, trust_env=False).status_code


async def test_limits_are_set_and_their_use_is_seen_live(open_page: OpenPage, product: Product, fake: FakeNode) -> None:
    product.add_node("left", fake.url)
    key = mint(product, "seen live")
    page = await open_page("hana", "/keys/")
    await page.get_by_role("link", name="seen live", exact=True).click()
    await expect(page.get_by_text("This key has no limits.")).to_be_visible()
    group = page.get_by_role("group", name="All models together")
    await group.get_by_label("Requests per minute").fill("3")
    more = page.get_by_role("group", name="One more model")
    await more.get_by_label("Model").fill("model-a")
    await more.get_by_label("Tokens per day").fill("1000")
    await page.get_by_role("button", name="Save limits").click()
    await expect(page.get_by_role("status")).to_contain_text("The limits of “seen live” are changed.")
    await expect(page.locator(".limit-row")).to_have_count(2)
    await expect(page.locator("#live-state")).to_have_text("Live")
    await group.get_by_label("Requests per minute").fill("30")  # what is being typed stays when the page updates
    wait_until(lambda: ask(product, key["key"]) == 200, seconds=5, what="the node serves")
    await expect(page.locator(".limit-row").first).to_contain_text(re.compile("[12] / 3"))
    await expect(page.locator(".limit-row").nth(1)).to_contain_text(re.compile(r"[1-9]\d* / 1,000"))
    await expect(group.get_by_label("Requests per minute")).to_have_value("30")
    assert {ask(product, key["key"]) for _ in range(4)} == {200, 429}
    await expect(page.locator(".limit-row.is-full")).to_contain_text("3 / 3")


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_page_fits_and_is_accessible(
    open_page: OpenPage, product: Product, axe: str, width: int, scheme: str
) -> None:
    key = mint(product, f"a key with a name that is long {width} {scheme}")
    limits = [{"model": "meta-llama/Llama-3.1-405B-Instruct-with-a-very-long-name", "tokens_per_month": 10**12}]
    assert product.request("PATCH", f"/api/api-keys/{key['id']}", json={"limits": limits}).status_code == 200
    page = await open_page("hana", viewport={"width": width, "height": 800}, color_scheme=scheme, locale="ja-JP")
    await page.goto(f"/keys/{key['id']}/")
    await expect(page.get_by_role("heading", name="上限", exact=True)).to_be_visible()
    assert await page.evaluate("document.documentElement.scrollWidth") <= width
    await page.evaluate(axe)
    found = await page.evaluate("axe.run().then(result => result.violations.map(each => each.id))")
    assert found == []
