"""axe-core finds nothing serious on any page, in light and in dark. It finds perhaps a third of what can be wrong."""

from __future__ import annotations

import pytest
from playwright.async_api import Page

from nodes.fake_node import FakeNode
from tests.e2e.conftest import OpenPage
from tests.e2e.test_nodes import ask
from tests.support.product import Product


async def faults(page: Page, axe: str) -> list[str]:
    await page.evaluate(axe)  # a script tag would be refused by our own policy
    report = await page.evaluate("axe.run({resultTypes: ['violations']})")
    serious = [found for found in report["violations"] if found["impact"] in {"serious", "critical"}]
    return [
        f"{found['id']}: {found['help']}: {[node['html'][:160] for node in found['nodes'][:3]]}" for found in serious
    ]


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_nothing_serious_on_any_page(
    open_page: OpenPage, product: Product, fake: FakeNode, axe: str, theme: str
) -> None:
    node = product.add_node("left", fake.url)
    fake.behaviour.status = 500
    await ask(product, "model-a")
    fake.behaviour.status = 200
    page = await open_page("hana", color_scheme=theme)
    here = f"/nodes/{node['id']}/"
    paths = ["/", "/nodes/", here, f"{here}change", f"{here}delete", "/nodes/add", "/models/", "/models/register"]
    paths += ["/models/aliases/add", "/history/", "/keys/", "/users/", "/account/password", "/admin/", "/no-such-page"]
    found = {path: await _visit(page, path, axe) for path in paths}
    assert not {path: each for path, each in found.items() if each}


async def _visit(page: Page, path: str, axe: str) -> list[str]:
    answer = await page.goto(path)
    assert answer is not None
    assert answer.status == (404 if path == "/no-such-page" else 200), path
    return await faults(page, axe)


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_the_sign_in_page_in_japanese(open_page: OpenPage, axe: str, theme: str) -> None:
    page = await open_page(None, "/login", color_scheme=theme, locale="ja-JP")
    assert await faults(page, axe) == []
