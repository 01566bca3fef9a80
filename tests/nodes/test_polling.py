"""Checks: deaths and returns are seen in time, a dead node delays no other, a bad answer takes nothing away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from access.audit import SYSTEM
from llmlb_site.lib.models import Revision
from nodes import polling, probing, services, tasks
from nodes.background import background
from nodes.downloads import following
from nodes.fake_node import Behaviour
from nodes.models import Node, NodeModel, NodeStatus, NodeType, PollResult
from tests.nodes.conftest import StartFake, excluded_of, make_node, models_of, poll, reloaded, run_ticks

pytestmark = pytest.mark.django_db(transaction=True)
ROOT = Path(__file__).resolve().parents[2]


def status_of(node: Node) -> str:
    return reloaded(node).status


def exclude(node: Node, model: str, **values: Any) -> None:
    services.exclude_model_from_node(node_id=node.pk, model_id=model, reason="test", kind="audio", **values)


# --- status


def test_pending_becomes_online_and_its_type_is_detected(start_fake: StartFake) -> None:
    node = make_node(start_fake(["a"], kind="ollama"), status=NodeStatus.PENDING, node_type_detected_at=None)
    poll()
    node = reloaded(node)
    assert (node.status, node.node_type) == (NodeStatus.ONLINE, NodeType.OLLAMA)
    assert node.last_seen is not None


def test_pending_becomes_offline_with_the_first_failure() -> None:
    node = make_node("http://127.0.0.1:9", status=NodeStatus.PENDING)
    poll()
    assert status_of(node) == NodeStatus.OFFLINE


def test_one_failure_is_still_routed_and_looked_at_again_at_once(start_fake: StartFake) -> None:
    fake = start_fake(["a"])
    node = make_node(fake)
    fake.run(fake.kill())
    poll()
    node = reloaded(node)
    assert (node.status, node.consecutive_failures, node.is_routable) == (NodeStatus.ONLINE, 1, True)
    assert node.next_poll_at - timezone.now() < timedelta(seconds=0.5)
    poll()
    node = reloaded(node)
    assert (node.status, node.latency_ms) == (NodeStatus.OFFLINE, None)
    assert node.last_error == "refuses connections"


def test_a_success_between_failures_starts_the_count_anew(start_fake: StartFake) -> None:
    fake = start_fake(["a"], behaviour=Behaviour(mode="refuse_models"))
    node = make_node(fake)
    poll()
    fake.behaviour = Behaviour()
    poll()
    fake.behaviour = Behaviour(mode="refuse_models")
    poll()
    assert status_of(node) == NodeStatus.ONLINE


def test_offline_after(configure: Any) -> None:
    configure(offline_after=3)
    node = make_node("http://127.0.0.1:9")
    poll()
    poll()
    assert status_of(node) == NodeStatus.ONLINE
    poll()
    assert status_of(node) == NodeStatus.OFFLINE


def test_a_black_hole_is_offline_after_one_check(start_fake: StartFake, configure: Any) -> None:
    configure(probe_timeout=3)
    node = make_node(start_fake(["a"], behaviour=Behaviour(mode="hang")))
    started = time.monotonic()
    poll()
    assert status_of(node) == NodeStatus.OFFLINE
    assert time.monotonic() - started < 3.5


def test_a_stuck_connection_is_no_dead_node(start_fake: StartFake, configure: Any) -> None:
    configure(probe_timeout=4)
    fake = start_fake(["a"], behaviour=Behaviour(mode="hang", times=1))
    node = make_node(fake)
    poll()
    assert (status_of(node), reloaded(node).consecutive_failures) == (NodeStatus.ONLINE, 0)
    assert len(fake.seen) == 2


def test_an_old_check_that_fails_does_not_undo_a_newer_success(start_fake: StartFake, configure: Any) -> None:
    configure(probe_timeout=2)
    fake = start_fake(["a"], behaviour=Behaviour(mode="hang", times=1))
    node = make_node(fake, last_seen=None)
    Node.objects.update(next_poll_at=timezone.now())
    polling.poll_due()
    time.sleep(0.3)
    poll(timeout=5)
    assert (status_of(node), reloaded(node).consecutive_failures) == (NodeStatus.ONLINE, 0)


def test_a_disabled_node_is_not_checked(start_fake: StartFake) -> None:
    fake = start_fake(["a"])
    make_node(fake, enabled=False)
    Node.objects.update(next_poll_at=timezone.now())
    assert tasks.poll_due() == 0
    assert fake.seen == []


# --- the list


@pytest.mark.parametrize("mode", ["refuse_models", "garbage_models"])
def test_a_bad_answer_is_a_failure_and_keeps_the_last_good_list(mode: Any, start_fake: StartFake) -> None:
    node = make_node(start_fake(["a", "b"], behaviour=Behaviour(mode=mode)))
    poll()
    assert reloaded(node).consecutive_failures == 1
    poll()
    assert status_of(node) == NodeStatus.OFFLINE
    assert models_of(node) == {"a", "b"}


def test_an_empty_list_leaves_it_online_with_nothing_to_route(start_fake: StartFake) -> None:
    node = make_node(start_fake(["a"], behaviour=Behaviour(mode="empty_models")))
    poll()
    assert (status_of(node), models_of(node)) == (NodeStatus.ONLINE, set())
    assert reloaded(node).last_error == "lists no models"


def test_the_list_follows_the_node(start_fake: StartFake) -> None:
    fake = start_fake(["b", "c"], kind="vllm")
    node = make_node(fake, models=("a", "b"))
    poll()
    assert models_of(node) == {"b", "c"}
    assert NodeModel.objects.get(model_id="b").context_length == 32768


def test_a_manual_type_sticks_over_a_return(start_fake: StartFake) -> None:
    node = make_node(start_fake(["a"], kind="vllm"), status=NodeStatus.OFFLINE)
    services.set_node_type(node_id=node.pk, node_type="xllm", actor=SYSTEM)
    poll()
    assert (status_of(node), reloaded(node).node_type) == (NodeStatus.ONLINE, NodeType.XLLM)
    services.set_node_type(node_id=node.pk, node_type=None, actor=SYSTEM)
    poll()
    assert reloaded(node).node_type == NodeType.VLLM


# --- exclusions


def test_offline_to_online_clears_exclusions_and_detects_anew(start_fake: StartFake) -> None:
    node = make_node(start_fake(["a", "b"], kind="vllm"), status=NodeStatus.OFFLINE, node_type=NodeType.OLLAMA)
    exclude(node, "a")
    poll()
    assert excluded_of(node) == set()
    assert reloaded(node).node_type == NodeType.VLLM


def test_a_restart_seen_between_two_checks_clears_exclusions(start_fake: StartFake) -> None:
    fake = start_fake(["a"])
    node = make_node(fake)
    exclude(node, "a")
    fake.run(fake.kill())
    poll()
    assert status_of(node) == NodeStatus.ONLINE
    fake.run(fake.start())
    poll()
    assert excluded_of(node) == set()


def test_another_start_time_clears_exclusions(start_fake: StartFake) -> None:
    fake = start_fake(["a"], kind="xllm")
    node = make_node(fake, node_type=NodeType.XLLM, server_started_at=fake.own.started_at)
    exclude(node, "a")
    poll()
    assert excluded_of(node) == {"a"}
    fake.own.started_at = "2026-11-21T21:00:00.000000Z"
    poll()
    assert excluded_of(node) == set()
    assert reloaded(node).server_started_at == fake.own.started_at


def test_a_plain_success_lifts_nothing(start_fake: StartFake) -> None:
    node = make_node(start_fake(["a"]))
    exclude(node, "a")
    poll()
    assert excluded_of(node) == {"a"}


def test_a_success_after_a_request_that_could_not_connect_lifts_all(start_fake: StartFake) -> None:
    node = make_node(start_fake(["a", "b"]))
    exclude(node, "a")
    exclude(node, "b", on_connect=True)
    poll()
    assert excluded_of(node) == set()


def test_garbage_between_two_good_answers_is_no_restart(start_fake: StartFake) -> None:
    fake = start_fake(["a"], behaviour=Behaviour(mode="refuse_models", times=1))
    node = make_node(fake)
    exclude(node, "a")
    poll()
    poll()
    assert excluded_of(node) == {"a"}


# --- time


def test_ten_dead_nodes_do_not_delay_a_live_one(start_fake: StartFake, configure: Any) -> None:
    configure(probe_timeout=3)
    holes = [start_fake(behaviour=Behaviour(mode="hang")) for _ in range(10)]
    for number, fake in enumerate(holes):
        make_node(fake, f"dead-{number}")
    live = make_node(start_fake(["a"]), "live", status=NodeStatus.OFFLINE)
    Node.objects.update(next_poll_at=timezone.now())
    assert tasks.poll_due() == 11
    assert run_ticks(lambda: status_of(live) == NodeStatus.ONLINE, within=1.5, every=0.02, tick=lambda: None) < 1.5


def test_dead_nodes_hold_no_worker(start_fake: StartFake) -> None:
    make_node(start_fake(behaviour=Behaviour(mode="hang")))
    Node.objects.update(next_poll_at=timezone.now())
    started = time.monotonic()
    tasks.poll_due()
    assert time.monotonic() - started < 0.5


def test_each_node_has_its_own_interval(start_fake: StartFake) -> None:
    quick, slow = start_fake(["a"]), start_fake(["b"])
    make_node(quick, "quick", health_check_interval=1)
    make_node(slow, "slow", health_check_interval=300)
    deadline = time.monotonic() + 3.2
    run_ticks(lambda: time.monotonic() > deadline, within=4, every=0.1)
    assert 3 <= len(quick.seen) <= 5
    assert len(slow.seen) == 1


def test_death_and_return_show_within_the_time(start_fake: StartFake) -> None:
    """The contract's 10 s, with the default settings: once refused, and once black-holed."""
    refused, hole = start_fake(["a"]), start_fake(["b"])
    first, second = make_node(refused, "refused"), make_node(hole, "hole")
    poll()
    # The worst moment to die is right after a check.
    refused.run(refused.kill())
    hole.behaviour = Behaviour(mode="hang")
    died = time.monotonic()
    run_ticks(lambda: status_of(first) == NodeStatus.OFFLINE, within=6)
    run_ticks(lambda: status_of(second) == NodeStatus.OFFLINE, within=10 - (time.monotonic() - died))
    refused.run(refused.start())
    hole.behaviour = Behaviour()
    both = Node.objects.filter(status=NodeStatus.ONLINE)
    run_ticks(lambda: both.count() == 2, within=6)


def test_the_longest_way_to_a_death_leaves_room_in_the_time(settings: Any) -> None:
    (every,) = (each["schedule"] for each in settings.CELERY_BEAT_SCHEDULE.values() if each["task"] == tasks.tick.name)
    longest = Node().poll_pause().total_seconds() + every + settings.LLMLB.probe_timeout
    assert longest <= 9.5


def test_a_tick_starts_all_that_is_due_though_one_part_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[str] = []

    def failing() -> int:
        raise OperationalError("the database is away")

    monkeypatch.setattr(polling, "poll_due", failing)
    monkeypatch.setattr(probing, "probe_excluded", lambda: done.append("probes"))
    monkeypatch.setattr(following, "follow_due", lambda: done.append("downloads"))
    tasks.tick()
    assert done == ["probes", "downloads"]
    assert "failing failed" in caplog.text


def test_a_stopped_process_is_seen_and_its_return_too(configure: Any) -> None:
    configure(probe_timeout=3, health_check_interval=1)
    command = [sys.executable, "manage.py", "fake_node", "--models", "a"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        try:
            assert process.stdout is not None
            node = make_node(process.stdout.readline().split()[0], models=("a",))
            process.send_signal(signal.SIGSTOP)
            run_ticks(lambda: status_of(node) == NodeStatus.OFFLINE, within=6)
            process.send_signal(signal.SIGCONT)
            run_ticks(lambda: status_of(node) == NodeStatus.ONLINE, within=3)
        finally:
            process.kill()
            background().wait_idle(10)


# --- cost


def test_a_tick_with_nothing_due_costs_one_query(
    start_fake: StartFake, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    make_node(start_fake())
    poll()
    with django_assert_num_queries(1):
        assert tasks.poll_due() == 0
    with django_assert_num_queries(1):
        assert tasks.probe_excluded() == 0
    with django_assert_num_queries(3):
        tasks.tick()


def test_a_check_that_shows_nothing_new_tells_no_one(start_fake: StartFake) -> None:
    node = make_node(start_fake(["a"]))
    poll()
    before = dict(Revision.objects.values_list("topic", "number"))
    latency = reloaded(node).latency_ms
    poll()
    assert dict(Revision.objects.values_list("topic", "number")) == before
    assert reloaded(node).latency_ms != latency


def test_a_node_is_claimed_once(start_fake: StartFake) -> None:
    make_node(start_fake())
    now = timezone.now()
    Node.objects.update(next_poll_at=now)
    assert len(polling.claim_due(now)) == 1
    assert polling.claim_due(now) == []


def test_fifty_failures_ask_for_one_check(start_fake: StartFake) -> None:
    fake = start_fake(["a"])
    node = make_node(fake, next_poll_at=timezone.now() + timedelta(seconds=2))
    for _ in range(50):
        services.check_node_soon(node_id=node.pk)
        tasks.poll_due()
    assert background().wait_idle(5)
    assert len(fake.seen) == 1


# --- history


def results(node: Node) -> list[tuple[bool, str, str]]:
    return list(PollResult.objects.filter(node=node).order_by("id").values_list("ok", "status_before", "status_after"))


def test_changes_and_failures_are_kept_and_sameness_once_a_minute(start_fake: StartFake) -> None:
    fake = start_fake(["a"])
    node = make_node(fake)
    for _ in range(3):
        poll()
    assert results(node) == [(True, "online", "online")]
    fake.run(fake.kill())
    for _ in range(4):
        poll()
    assert results(node)[1:] == [(False, "online", "online"), (False, "online", "offline")]


def test_old_results_are_deleted(start_fake: StartFake) -> None:
    node = make_node(start_fake())
    for days in (1, 31, 40):
        at = timezone.now() - timedelta(days=days)
        PollResult.objects.create(node=node, at=at, ok=True, status_before="online", status_after="online")
    assert tasks.prune_polls() == 2
    assert PollResult.objects.count() == 1


# --- the clock


def test_a_clock_that_is_set_back_makes_every_check_due() -> None:
    node = make_node("http://127.0.0.1:9")
    now = timezone.now()
    clock = polling._Clock()
    clock.heed(now)
    for minutes, due in ((61, False), (1, True), (0, True)):
        moved = now - timedelta(minutes=60 - minutes)
        Node.objects.filter(pk=node.pk).update(next_poll_at=now + timedelta(seconds=3))
        clock.heed(moved)
        assert (reloaded(node).next_poll_at == moved) == due


def test_a_check_that_is_due_in_an_hour_is_due_after_a_start() -> None:
    node = make_node("http://127.0.0.1:9", next_poll_at=timezone.now() + timedelta(hours=1))
    polling._Clock().heed(timezone.now())
    assert reloaded(node).next_poll_at <= timezone.now()
