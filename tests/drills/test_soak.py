"""Everything at once for twenty minutes: what the product holds must stop growing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression
from typing import Final

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Origin

from tests.blackbox.conftest import MakeProduct
from tests.drills.clients import APIS, DIALECTS, TRANSCRIPTION, Client, request, upload
from tests.drills.conftest import Drill, MakeNodeProcess, is_full
from tests.drills.fleet import memory, routed
from tests.support.product import Product

SECONDS: Final = float(os.environ.get("LLMLB_DRILL_SOAK_SECONDS", "1200"))
# Caches, pools and the allocator need a while to be as large as they will be.
WARM_UP_SHARE: Final = 0.4
SAMPLE_SECONDS: Final = 2.0
# Of the samples of so many seconds the smallest counts: garbage that is not yet collected is no leak.
WINDOW_SECONDS: Final = 30.0
WORKERS: Final = 12
PAUSE_SECONDS: Final = 0.3
UPLOAD_BYTES: Final = 3_000_000  # more than is kept in memory
PAGE_SECONDS: Final = 20.0
LIMITS: Final = [
    {"requests_per_minute": 100, "tokens_per_day": 1_000_000_000},
    {"model": "model-a", "concurrent_requests": 2},
]
PASSWORD: Final = "a long walk along the river"
LOST: Final = "lost"


@dataclass
class Held:
    """What the product holds at one moment after another. `at` is seconds since the beginning."""

    at: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    tasks: list[int] = field(default_factory=list)

    def look(self, product: Product, at: float) -> None:
        process = Path(f"/proc/{product.process.pid}")
        found = re.search(r"^llmlb_tasks (\S+)", product.get("/metrics").text, re.M)
        assert found is not None
        self.at.append(at)
        self.memory.append(memory(product))
        self.descriptors.append(len(list((process / "fd").iterdir())))
        self.threads.append(len(list((process / "task").iterdir())))
        self.tasks.append(int(float(found[1])))

    def slope(self) -> float:
        """By how much of itself memory grows in an hour, after the warm-up."""
        windows: dict[int, tuple[float, int]] = {}
        for at, size in zip(self.at, self.memory, strict=True):
            if at >= self.at[-1] * WARM_UP_SHARE:
                number = int(at / WINDOW_SECONDS)
                windows[number] = min(windows.get(number, (at, size)), (at, size), key=lambda sample: sample[1])
        times, sizes = zip(*windows.values(), strict=True)
        slope: float = linear_regression(times, sizes).slope
        return slope * 3600 / float(sizes[0])

    def early_and_late(self, values: list[int]) -> tuple[int, int]:
        """The most of them in the third quarter, and in the last one."""
        quarter = len(values) // 4
        return max(values[2 * quarter : 3 * quarter]), max(values[3 * quarter :])


@dataclass
class Seen:
    """What the clients saw: how many requests of each kind ended in which way, and hints on an open dashboard."""

    answers: Counter[str] = field(default_factory=Counter)
    hints: int = 0


async def one_of_everything(product: Product, limited: str, chance: random.Random, seen: Seen) -> None:
    """One request as somebody might send it: of any API; whole, streamed, wrong, given up, or with a limited key."""
    api = chance.choice(list(APIS))
    kind = chance.choice(["whole", "whole", "stream", "left", "wrong", "unknown", "long", "limited"])
    model = "no-such-model" if kind == "unknown" else "model-a"
    key = limited if kind == "limited" else ""
    more = {"temperature": 99} if kind == "wrong" else {"user": "x" * 100_000} if kind == "long" else {}
    data = request(product, api, model=model, stream=api in DIALECTS and kind in ("stream", "left"), key=key, **more)
    if api == TRANSCRIPTION and kind == "long":
        data = upload(product, size=UPLOAD_BYTES)
    client = Client(product)
    try:
        if kind == "left":
            await client.send(data)
            await client.read_some()
            seen.answers["left"] += 1
        else:
            answer = await client.ask(data)
            seen.answers[f"{kind} {answer.status}"] += 1
    except (OSError, asyncio.IncompleteReadError):
        seen.answers[f"{kind} {LOST}"] += 1
    finally:
        client.abort()


async def watch(product: Product, seen: Seen) -> None:
    """A page of the dashboard that is open, and opened anew from time to time, until it is cancelled."""
    cookie = await asyncio.to_thread(session_cookie, product)
    address = f"ws://127.0.0.1:{product.port}/ws/dashboard"
    while True:
        with contextlib.suppress(TimeoutError, ConnectionClosed):
            async with (
                asyncio.timeout(PAGE_SECONDS),
                connect(address, origin=Origin(product.url), additional_headers={"Cookie": cookie}, proxy=None) as page,
            ):
                async for _hint in page:
                    seen.hints += 1


def session_cookie(product: Product) -> str:
    """That of a browser in which the administrator has signed in."""
    with httpx.Client(base_url=product.url, trust_env=False, headers={"Origin": product.url}) as browser:
        form = browser.get("/login").text
        token = form.partition('name="csrfmiddlewaretoken" value="')[2].partition('"')[0]
        sent = {"username": "admin", "password": PASSWORD, "csrfmiddlewaretoken": token}
        assert browser.post("/login", data=sent).status_code == 302
        return f"llmlb_session={browser.cookies['llmlb_session']}"


def limited_key(product: Product) -> str:
    values = {"name": "limited", "permissions": ["openai.inference"], "limits": LIMITS}
    answer = product.post("/api/api-keys", json=values)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["key"])


async def soak(product: Product, seconds: float) -> tuple[Held, Seen]:
    held, seen = Held(), Seen()
    chance = random.Random(7)
    limited = limited_key(product)
    began = time.monotonic()

    async def work() -> None:
        while time.monotonic() - began < seconds:
            await one_of_everything(product, limited, chance, seen)
            await asyncio.sleep(PAUSE_SECONDS * chance.random())

    working = [asyncio.create_task(work()) for _ in range(WORKERS)]
    watching = asyncio.create_task(watch(product, seen))
    while time.monotonic() - began < seconds:
        await asyncio.to_thread(held.look, product, time.monotonic() - began)
        await asyncio.sleep(SAMPLE_SECONDS)
    await asyncio.gather(*working)
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    return held, seen


@pytest.mark.timeout(SECONDS + 300)
@pytest.mark.skipif(not is_full(), reason="only in full: `make drill`")
def test_a_mixed_soak_holds_no_more_in_the_end(
    product: MakeProduct, node_process: MakeNodeProcess, drill: Drill
) -> None:
    running = product(environment={"LLMLB_ADMIN_PASSWORD": PASSWORD}).start()
    shape = {"latency": 0.01, "chunks": 20, "chunk_interval": 0.01}
    routed(running, node_process(**shape, apis=("/v1/responses", "/v1/messages")), node_process(**shape))
    held, seen = asyncio.run(soak(running, SECONDS))
    slope, megabytes = held.slope(), held.memory[-1] / 2**20
    name = f"mixed soak, {SECONDS / 60:.0f} minutes, {seen.answers.total()} requests"
    drill.record(f"{name}: memory", f"{slope:+.1%}/h at {megabytes:.0f} MiB", goal="≤ 1%/h", ok=slope <= 0.01)
    figures = {
        kind: held.early_and_late(values)
        for kind, values in (("descriptors", held.descriptors), ("threads", held.threads), ("tasks", held.tasks))
    }
    drill.record(
        f"{name}: what else it holds",
        ", ".join(f"{kind} {early} → {late}" for kind, (early, late) in figures.items()),
        goal="flat",
        ok=all(late <= early + max(5, 0.2 * early) for early, late in figures.values()),
    )
    bad = {kind: count for kind, count in seen.answers.items() if re.search(rf" (5\d\d|{LOST})$", kind)}
    over_limit = seen.answers["limited 429"]
    drill.record(
        f"{name}: answers",
        f"{sum(bad.values())} of 5xx or lost {bad or ''}".strip()
        + f", {over_limit} over a limit, {seen.hints} live hints",
        goal="0 of 5xx or lost, some of the others",
        ok=not bad and over_limit > 0 and seen.hints > 0,
    )
    assert running.stop() == 0, running.output
    assert "Traceback" not in running.output
