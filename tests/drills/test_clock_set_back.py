"""The gateway's clock is set back by an hour while it serves."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx

from tests.blackbox.conftest import MakeProduct
from tests.drills.clients import request
from tests.drills.conftest import Drill, MakeNodeProcess
from tests.drills.fleet import load, lost, routed, seconds_until, status_of
from tests.support.product import ROOT, Product, wait_until

PER_MINUTE = 5


def test_a_clock_that_is_set_back(
    product: MakeProduct, node_process: MakeNodeProcess, drill: Drill, tmp_path: Path
) -> None:
    switch = tmp_path / "clock"
    environment = {"PYTHONPATH": str(ROOT / "tests/support/stepped_clock"), "CLOCK_FILE": str(switch)}
    running = product(environment=environment).start()
    node, other = node_process(latency=0.02), node_process(latency=0.02)
    number, _other = routed(running, node, other)
    limited = minted(running, "limited", limits=[{"requests_per_minute": PER_MINUTE}])
    expiring = minted(running, "expiring", expires_at=(datetime.now(UTC) + timedelta(minutes=30)).isoformat())
    assert [ask(running, limited).status_code for _ in range(PER_MINUTE + 1)] == [200] * PER_MINUTE + [429]

    def step() -> None:
        time.sleep(1)
        switch.touch()
        wait_until(lambda: "set back" in running.output, seconds=10, what="the product's clock is set back")

    rate, seconds = (200.0, 20.0) if drill.full else (50.0, 3.0)
    answers = asyncio.run(load(running, rate=rate, seconds=seconds, beside=step))
    accepted = ask(running, expiring).status_code
    drill.record(
        "clock set back by an hour: requests",
        f"{lost(answers)} of {len(answers)} lost, a key that expires in half an hour: {accepted}",
        goal="0 lost, 200",
        ok=not lost(answers) and accepted == 200,
    )
    the_rate_window_is_a_minute(running, limited, drill)
    the_history_is_in_order(running, drill)
    node.kill()
    died = seconds_until(lambda: status_of(running, number) == "offline", within=30)
    node.start()
    back = seconds_until(lambda: status_of(running, number) == "online", within=30)
    drill.record(
        "clock set back by an hour: a node's death and return",
        f"seen after {died:.1f} s and {back:.1f} s",
        goal="≤ 10 s each",
        ok=died <= 10 and back <= 10,
    )
    assert running.stop() == 0, running.output
    assert "Traceback" not in running.output


def minted(product: Product, name: str, **values: object) -> str:
    answer = product.post("/api/api-keys", json={"name": name, "permissions": ["openai.inference"], **values})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["key"])


def ask(product: Product, key: str, id: str = "") -> httpx.Response:
    _head, _empty, body = request(product).partition(b"\r\n\r\n")
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", "X-Request-ID": id}
    return product.post("/v1/chat/completions", content=body, headers=headers)


def the_rate_window_is_a_minute(product: Product, key: str, drill: Drill) -> None:
    refused = ask(product, key)
    wait = float(refused.headers.get("retry-after", "0"))
    again = 0
    if drill.full:
        time.sleep(wait + 1)
        again = ask(product, key).status_code
    drill.record(
        "clock set back by an hour: a key over its requests a minute",
        f"{refused.status_code}, Retry-After {wait:.0f} s" + (f", then {again}" if drill.full else ""),
        goal="429 and ≤ 60 s" + (", then 200" if drill.full else ""),
        ok=refused.status_code == 429 and 0 < wait <= 60 and (again == 200 or not drill.full),
    )


def the_history_is_in_order(product: Product, drill: Drill) -> None:
    """Newest first, though the clock says otherwise of those before the step."""
    sent = [f"order-{number}" for number in range(10)]
    for id in sent:
        ask(product, product.key, id)

    def listed() -> list[str]:
        page = product.get("/api/dashboard/request-responses", params={"per_page": 100}).json()["records"]
        return [record["request_id"] for record in page if record["request_id"]]

    seconds_until(lambda: sent[-1] in listed(), within=10)
    in_order = [id for id in listed() if id in sent] == sent[::-1] and listed()[: len(sent)] == sent[::-1]
    drill.record(
        "clock set back by an hour: the history",
        "newest first" if in_order else f"{listed()[:10]}",
        goal="newest first",
        ok=in_order,
    )
