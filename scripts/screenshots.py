"""Makes docs/images/overview.png and overview-dark.png: the real product, fake nodes, an hour of made-up history.

.venv/bin/python -m scripts.screenshots [directory]
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sys
import tempfile
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import httpx
from playwright.async_api import Browser, ViewportSize, async_playwright

from nodes.fake_node import Behaviour, FakeNode, running_fake_node
from tests.support.product import ROOT, Product

PASSWORD: Final = "a long walk along the river"
SIZE: Final = ViewportSize(width=1280, height=980)
FLEET: Final[dict[str, tuple[str, list[str]]]] = {
    "mac-studio": ("ollama", ["llama3.2:3b", "qwen2.5:14b", "gemma3:12b", "nomic-embed-text"]),
    "cuda-01": ("vllm", ["meta-llama/Llama-3.1-70B-Instruct"]),
    "cuda-02": ("vllm", ["meta-llama/Llama-3.1-70B-Instruct", "Qwen/Qwen2.5-Coder-32B"]),
    "lab-llama": ("llama_cpp", ["smollm2-135m-instruct"]),
    "desk": ("lm_studio", ["qwen2.5:14b", "mistral-small-24b"]),
    "rocm-01": ("ollama", ["qwen2.5:14b", "llama3.2:3b"]),
}
BUSY: Final = (
    ["llama3.2:3b"] * 3 + ["qwen2.5:14b"] * 5 + ["meta-llama/Llama-3.1-70B-Instruct"] * 90 + ["smollm2-135m-instruct"]
)


def main() -> None:
    target = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "docs" / "images")
    target.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        data_dir = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        product = Product(data_dir, environment={"LLMLB_ADMIN_PASSWORD": PASSWORD, "LLMLB_EXCLUSION_PROBE_SECS": "0"})
        stack.callback(product.end)
        make_history(product)
        product.start()
        fakes = {name: stack.enter_context(fake(kind, models)) for name, (kind, models) in FLEET.items()}
        nodes = {name: product.add_node(name, each.url)["id"] for name, each in fakes.items()}
        asyncio.run(portray(product, fakes, nodes, target))


def fake(kind: str, models: list[str]) -> Any:
    """A node whose answers take long enough to be seen in flight."""
    return running_fake_node(models, kind=kind, behaviour=Behaviour(chunks=400, chunk_interval=0.1))


def make_history(product: Product) -> None:
    """An hour of requests, written as the recorder would have."""
    os.environ.update(product.environment())
    os.environ["DJANGO_SETTINGS_MODULE"] = "llmlb_site.settings"
    import django

    django.setup()
    from django.core.management import call_command
    from django.db import connection
    from django.utils import timezone

    from history.models import RequestRecord, TokenTotal

    call_command("migrate", verbosity=0)
    now, dice = timezone.now(), random.Random(7)
    moments = sorted(now - timedelta(minutes=60 * dice.random() ** 0.8) for _ in range(1800))
    RequestRecord.objects.bulk_create(RequestRecord(started_at=at, **one_request(dice)) for at in moments)
    TokenTotal.objects.create(
        day=now.date(), model="llama3.2:3b", requests=21_840, prompt_tokens=8_120_000, completion_tokens=2_310_000
    )
    connection.close()


def one_request(dice: random.Random) -> dict[str, Any]:
    outcome, status, code = dice.choices(
        [("success", 200, ""), ("client_error", 400, ""), ("node_error", 502, "node_connection_error")], [965, 25, 4]
    )[0]
    name, (_kind, models) = dice.choice(list(FLEET.items()))
    return {
        "request_id": f"req-{dice.randrange(10**9)}",
        "kind": "chat",
        "model": dice.choice(models),
        "node_name": name,
        "api_key_name": "ci",
        "outcome": outcome,
        "status": status,
        "error_code": code,
        "duration_ms": dice.lognormvariate(7, 0.8),
        "total_tokens": dice.randint(50, 900),
    }


async def portray(product: Product, fakes: dict[str, FakeNode], nodes: dict[str, int], target: Path) -> None:
    async with httpx.AsyncClient(base_url=product.url, headers=product.headers, timeout=60, trust_env=False) as client:
        await exclude(client, fakes["mac-studio"], "gemma3:12b")
        await client.post(f"/api/nodes/{nodes['cuda-02']}/drain")
        fakes["desk"].behaviour.mode = "refuse_models"
        await client.post(f"/api/nodes/{nodes['desk']}/test")
        await client.post(f"/api/nodes/{nodes['desk']}/test")
        asking = [asyncio.create_task(ask(client, model)) for model in BUSY]
        await asyncio.sleep(2)
        async with async_playwright() as driver:
            browser = await driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            for theme, name in (("light", "overview"), ("dark", "overview-dark")):
                await take(browser, product, theme, target / f"{name}.png")
            await browser.close()
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


async def exclude(client: httpx.AsyncClient, node: FakeNode, model: str) -> None:
    node.behaviour.status = 500
    await ask(client, model)
    node.behaviour.status = 200


async def ask(client: httpx.AsyncClient, model: str) -> None:
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "Tell me a long story."}]}
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        async for _chunk in answer.aiter_raw():
            pass


async def take(browser: Browser, product: Product, theme: Any, path: Path) -> None:
    context = await browser.new_context(
        base_url=product.url, viewport=SIZE, color_scheme=theme, device_scale_factor=1.5, locale="en-US"
    )
    page = await context.new_page()
    await page.goto("/login")
    await page.get_by_label("User name").fill("admin")
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    await page.locator("#live-state[data-state=live]").wait_for()
    await page.screenshot(path=path)
    await context.close()


if __name__ == "__main__":
    main()
