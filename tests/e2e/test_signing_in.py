"""Signing in and out, with a given password that must be changed first, and when a session has ended."""

from __future__ import annotations

import re

from playwright.async_api import expect

from tests.e2e.conftest import PASSWORD, OpenPage
from tests.support.product import Product


async def test_a_wrong_password_is_refused_and_the_right_one_leads_on(open_page: OpenPage) -> None:
    page = await open_page(None, "/nodes/")
    await expect(page).to_have_url(re.compile(r"/login\?next="))
    await page.get_by_label("User name").fill("ken")
    await page.get_by_label("Password").fill("not the password")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_text("Invalid username or password")).to_be_visible()
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("heading", name="Nodes", level=1)).to_be_visible()


async def test_a_given_password_must_be_changed_before_anything_else(open_page: OpenPage, product: Product) -> None:
    made = product.post("/api/users", json={"username": "mei", "role": "viewer"}).json()
    page = await open_page(None, "/login")
    await page.get_by_label("User name").fill("mei")
    await page.get_by_label("Password").fill(made["generated_password"])
    await page.get_by_role("button", name="Sign in").click()
    await expect(page).to_have_url(re.compile("/account/password"))
    await page.goto("/nodes/")
    await expect(page).to_have_url(re.compile("/account/password"))
    await expect(page.get_by_role("navigation", name="Main")).to_have_count(0)
    await page.get_by_label("Current password").fill(made["generated_password"])
    await page.get_by_label("New password", exact=True).fill(PASSWORD)
    await page.get_by_label("New password, once more").fill(PASSWORD)
    await page.locator("main form button.is-primary").click()
    await page.goto("/nodes/")
    await expect(page.get_by_role("heading", name="Nodes", level=1)).to_be_visible()


async def test_signing_out(open_page: OpenPage) -> None:
    page = await open_page("yui")
    await page.get_by_text("yui").first.click()
    await page.get_by_role("button", name="Sign out").click()
    await expect(page).to_have_url(re.compile("/login"))
    await page.goto("/")
    await expect(page).to_have_url(re.compile("/login"))


async def test_a_session_that_ended_leads_to_sign_in_and_back(open_page: OpenPage) -> None:
    page = await open_page("yui", "/nodes/")
    await page.context.clear_cookies()
    await page.get_by_label("Search").fill("x")  # what htmx fetches is refused; the whole page goes to sign-in
    await expect(page).to_have_url(re.compile(r"/login\?next=%2Fnodes"))
