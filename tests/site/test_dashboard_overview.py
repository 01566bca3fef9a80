"""The first page: the fleet at a glance; what a newcomer does first; live parts alone for htmx."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from access.models import User
from history.choices import Outcome
from history.models import TokenTotal
from llmlb_site.dashboard import fleet, traffic
from llmlb_site.lib import health, reuse
from nodes.models import NodeStatus
from tests.site.fleet import make_node, make_request

SignIn = Callable[[User], Client]


@pytest.fixture(autouse=True)
def _fresh_figures() -> Iterator[None]:
    reuse.forget_all()
    yield
    reuse.forget_all()


def page(browser: Client, path: str = "/", **headers: str) -> str:
    return browser.get(path, headers=headers).content.decode()


def test_the_state_of_the_fleet(signed_in: SignIn, yui: User) -> None:
    make_node("left", "model-a", excluded=("model-b",))
    make_node("right", "model-a", status=NodeStatus.OFFLINE)
    make_request()
    make_request(Outcome.NODE_ERROR, error_code="node_timeout")
    text = page(signed_in(yui))
    assert "1 <small>/ 2</small>" in text  # nodes online; and models routable
    assert "1 unreachable" in text
    assert "50.0 %" in text
    assert "it answered 500" in text
    assert "left" in text
    assert "Three steps" not in text


def test_a_newcomer_is_told_what_to_do(signed_in: SignIn, ken: User, yui: User) -> None:
    text = page(signed_in(ken))
    assert "Three steps to the first answer" in text
    assert "curl http://testserver/v1/chat/completions" in text
    assert "/nodes/add" in text
    assert "/nodes/add" not in page(signed_in(yui))


def test_the_example_names_a_model_that_works(signed_in: SignIn, ken: User) -> None:
    make_node("left", "model-z", excluded=("model-a",))
    assert "&quot;model&quot;: &quot;model-z&quot;" in page(signed_in(ken)) or '"model": "model-z"' in page(
        signed_in(ken)
    )


def test_the_example_is_no_trap(signed_in: SignIn, ken: User) -> None:
    make_node("gpu-1", "'; rm -rf ~ #", "$(reboot)", "all-minilm", "qwen3:8b")

    text = page(signed_in(ken))
    command = text[text.index("curl ") : text.index("Hello!")]
    assert "&quot;qwen3:8b&quot;" in command or '"qwen3:8b"' in command
    assert not any(trap in command for trap in ("rm -rf", "reboot", "minilm"))


def test_only_who_may_read_history_sees_single_requests(signed_in: SignIn, ken: User, yui: User) -> None:
    make_node("left", "model-a")
    make_request(Outcome.BROKEN, error_code="stream_broke")
    assert "stream_broke" in page(signed_in(ken))
    assert "stream_broke" not in page(signed_in(yui))


def test_htmx_gets_the_live_part_alone(signed_in: SignIn, yui: User) -> None:
    browser = signed_in(yui)
    answer = browser.get("/", headers={"HX-Request": "true"})
    assert answer.content.lstrip().startswith(b'<div class="stack is-wide" id="overview"')
    assert "HX-Request" in answer["Vary"]
    whole = page(browser, **{"HX-Request": "true", "HX-History-Restore-Request": "true"})
    assert whole.startswith("<!doctype html>")


def test_a_part_of_the_server_that_does_not_work_is_said(signed_in: SignIn, ken: User, yui: User) -> None:
    health.report("worker of this test", ok=False, detail="it fell over")
    try:
        seen_by_ken, seen_by_yui = page(signed_in(ken)), page(signed_in(yui))
    finally:
        health.forget("worker of this test")
    assert "does not work: worker of this test. it fell over" in " ".join(seen_by_ken.replace("</p>", "").split())
    assert "worker of this test" in seen_by_yui
    assert "fell over" not in seen_by_yui


def test_upstreams_address_leads_here(signed_in: SignIn, yui: User) -> None:
    assert signed_in(yui).get("/dashboard")["Location"] == "/"


def test_the_last_hour_by_the_minute(db: None) -> None:
    make_request(minutes_ago=0)
    make_request(Outcome.NO_ROUTE, minutes_ago=0)
    make_request(Outcome.CANCELLED, minutes_ago=59)
    make_request(minutes_ago=61)
    hour = traffic.last_hour()
    assert len(hour.minutes) == 60
    assert (hour.total, hour.good, hour.failed, hour.success_rate) == (3, 1, 1, 0.5)
    assert (hour.minutes[-1].good, hour.minutes[-1].failed) == (1, 1)
    assert sum(minute.other for minute in hour.minutes[:2]) == 1
    assert hour.p50_ms == 100.0


def test_an_hour_without_requests_has_no_rate(db: None) -> None:
    hour = traffic.last_hour()
    assert (hour.success_rate, hour.p50_ms, hour.health, hour.scale) == (None, None, "", 4)


def test_tokens_of_today_alone(db: None) -> None:
    today = timezone.now().date()
    TokenTotal.objects.create(day=today, model="a", requests=2, prompt_tokens=10, completion_tokens=5)
    TokenTotal.objects.create(day=today - timedelta(days=1), model="a", requests=9, prompt_tokens=1000)
    hour = traffic.last_hour()
    assert (hour.tokens_today, hour.requests_today) == (15, 2)


def test_failures_newest_first_whatever_their_kind(db: None) -> None:
    made = [make_request(kind) for kind in (Outcome.BROKEN, Outcome.SUCCESS, Outcome.NO_ROUTE, Outcome.NODE_ERROR)]
    assert [record.pk for record in traffic.recent_failures()] == [made[3].pk, made[2].pk, made[0].pk]
    assert len(traffic.recent_failures(1)) == 1


def test_trouble_comes_first_on_the_strip(db: None) -> None:
    make_node("a")
    make_node("b", status=NodeStatus.OFFLINE)
    make_node("c", status=NodeStatus.ERROR)
    assert [tile.node.name for tile in fleet.tiles()] == ["c", "b", "a"]


def test_the_pages_ask_few_questions(
    signed_in: SignIn, ken: User, django_assert_max_num_queries: Callable[[int], object]
) -> None:
    browser = signed_in(ken)
    for number in range(30):
        make_node(f"node-{number}", "model-a", f"model-{number}", excluded=("model-x",))
    with django_assert_max_num_queries(22):  # type: ignore[attr-defined]
        browser.get("/")
    with django_assert_max_num_queries(9):  # type: ignore[attr-defined]
        browser.get("/nodes/")
    with django_assert_max_num_queries(9):  # type: ignore[attr-defined]
        browser.get("/models/")
