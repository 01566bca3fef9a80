"""Everything at once for twenty minutes: what the product holds must stop growing."""

from __future__ import annotations

import asyncio
import os
import random
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression
from typing import Final

import pytest

from tests.drills.clients import DIALECTS, Client, request
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


async def one_of_everything(product: Product, chance: random.Random, seen: Counter[str]) -> None:
    """One request as somebody might send it: whole, streamed, wrong, or given up."""
    dialect = chance.choice(list(DIALECTS))
    kind = chance.choice(["whole", "whole", "stream", "left", "wrong", "unknown", "long"])
    model = "no-such-model" if kind == "unknown" else "model-a"
    more = {"temperature": 99} if kind == "wrong" else {"user": "x" * 100_000} if kind == "long" else {}
    data = request(product, dialect, model=model, stream=kind in ("stream", "left"), **more)
    client = Client(product)
    try:
        if kind == "left":
            await client.send(data)
            await client.read_some()
            seen["left"] += 1
        else:
            answer = await client.ask(data)
            seen[f"{kind} {answer.status}"] += 1
    finally:
        client.abort()


async def soak(product: Product, seconds: float) -> tuple[Held, Counter[str]]:
    held, seen = Held(), Counter[str]()
    chance = random.Random(7)
    began = time.monotonic()

    async def work() -> None:
        while time.monotonic() - began < seconds:
            await one_of_everything(product, chance, seen)
            await asyncio.sleep(PAUSE_SECONDS * chance.random())

    working = [asyncio.create_task(work()) for _ in range(WORKERS)]
    while time.monotonic() - began < seconds:
        await asyncio.to_thread(held.look, product, time.monotonic() - began)
        await asyncio.sleep(SAMPLE_SECONDS)
    await asyncio.gather(*working)
    return held, seen


@pytest.mark.timeout(SECONDS + 300)
@pytest.mark.skipif(not is_full(), reason="only in full: `make drill`")
def test_a_mixed_soak_holds_no_more_in_the_end(
    one_product: Product, node_process: MakeNodeProcess, drill: Drill
) -> None:
    shape = {"latency": 0.01, "chunks": 20, "chunk_interval": 0.01, "apis": ("/v1/responses", "/v1/messages")}
    routed(one_product, node_process(**shape), node_process(latency=0.01, chunks=20, chunk_interval=0.01))
    held, seen = asyncio.run(soak(one_product, SECONDS))
    slope, megabytes = held.slope(), held.memory[-1] / 2**20
    name = f"mixed soak, {SECONDS / 60:.0f} minutes, {sum(seen.values())} requests"
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
    bad = {kind: count for kind, count in seen.items() if re.search(r" 5\d\d$", kind)}
    drill.record(f"{name}: answers", f"{sum(bad.values())} of 5xx {bad or ''}".strip(), goal="0", ok=not bad)
