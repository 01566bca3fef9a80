"""Models out of routing on one node, and back in: by hand, by the poison rule, by recovery probes."""

from __future__ import annotations

import json
import logging
import time
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from access.audit import SYSTEM, Actor
from access.models import AuditEvent, User
from llmlb_site.lib.models import Revision
from nodes import probing, services, tasks
from nodes.background import background
from nodes.fake_node import Behaviour, Mode
from nodes.models import NodeModel, NodeStatus
from nodes.queries import get_nodes_for_model
from nodes.refusals import UnknownModel, UnknownNode
from tests.nodes.conftest import StartFake, excluded_of, make_node, reloaded, run_ticks

pytestmark = pytest.mark.django_db(transaction=True)


def names_for(model: str) -> list[str]:
    return [node.name for node in get_nodes_for_model(model)]


def row_of(model: str) -> NodeModel:
    return NodeModel.objects.get(model_id=model)


def exclude(node: Any, model: str = "a", **values: Any) -> bool:
    return services.exclude_model_from_node(node_id=node.pk, model_id=model, **{"reason": "answered 500", **values})


def probe() -> int:
    started = tasks.probe_excluded()
    assert background().wait_idle(10)
    return started


# --- which nodes


def test_nodes_for_a_model() -> None:
    make_node("http://n1", "n1", models=("a", "b"))
    make_node("http://n2", "n2", models=("a",))
    make_node("http://off", "off", models=("a",), status=NodeStatus.OFFLINE)
    make_node("http://new", "new", models=("a",), status=NodeStatus.PENDING)
    make_node("http://out", "out", models=("a",), draining=True)
    make_node("http://not", "not", models=("a",), enabled=False)
    assert names_for("a") == ["n1", "n2"]
    assert names_for("b") == ["n1"]
    assert names_for("A") == names_for("c") == []


# --- out


def test_exclusion_is_of_one_model_on_one_node(caplog: pytest.LogCaptureFixture) -> None:
    node = make_node("http://n1", "n1", models=("a", "b"))
    make_node("http://n2", "n2", models=("a",))
    with caplog.at_level(logging.WARNING, "llmlb.nodes"):
        assert exclude(node)
    assert names_for("a") == ["n2"]
    assert names_for("b") == ["n1"]
    assert "node=n1 model=a reason=answered 500" in caplog.text
    event = AuditEvent.objects.get()
    assert (event.action, event.actor_kind, event.target) == ("model.exclude", "system", "n1")
    assert Revision.objects.get(topic="exclusions").number == 1


def test_excluding_again_only_counts() -> None:
    node = make_node("http://n1", models=("a",))
    assert exclude(node, reason="first")
    since = row_of("a").excluded_at
    assert not exclude(node, reason="second")
    row = row_of("a")
    assert (row.excluded_at, row.excluded_reason, row.failure_count) == (since, "first", 2)
    assert AuditEvent.objects.count() == 1


def test_what_a_node_does_not_list_cannot_be_excluded() -> None:
    assert not exclude(make_node("http://n1", models=("a",)), "other")


def test_all_excluded_leaves_the_node_online() -> None:
    node = make_node("http://n1", models=("a",))
    exclude(node)
    assert reloaded(node).status == NodeStatus.ONLINE
    assert names_for("a") == []


# --- back in by hand, or because the request was at fault


def test_an_operator_puts_one_or_all_back_in(ken: User) -> None:
    node = make_node("http://n1", models=("a", "b", "c"))
    for model in ("a", "b", "c"):
        exclude(node, model)
    actor = Actor.user(ken)
    assert services.reinclude_model(node_id=node.pk, model_id="a", actor=actor) == 1
    assert excluded_of(node) == {"b", "c"}
    assert services.reinclude_model(node_id=node.pk, model_id=None, actor=actor) == 2
    assert services.reinclude_model(node_id=node.pk, model_id=None, actor=actor) == 0
    event = AuditEvent.objects.filter(action="model.reinclude").latest("id")
    assert (event.actor, event.details["models"]) == ("ken", ["b", "c"])


def test_unknown_node_or_model() -> None:
    node = make_node("http://n1", models=("a",))
    with pytest.raises(UnknownModel):
        services.reinclude_model(node_id=node.pk, model_id="other", actor=SYSTEM)
    with pytest.raises(UnknownNode):
        services.reinclude_model(node_id=node.pk + 1, model_id=None, actor=SYSTEM)


def test_exclusions_of_a_poison_request_are_taken_back() -> None:
    first, second = make_node("http://n1", "n1", models=("a", "b")), make_node("http://n2", "n2", models=("a",))
    exclude(first)
    exclude(second)
    exclude(first, "b")
    assert services.take_back_exclusions(pairs=[(first.pk, "a"), (second.pk, "a")]) == 2
    assert (excluded_of(first), excluded_of(second)) == ({"b"}, set())


# --- recovery probes


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("chat", "/v1/chat/completions"),
        ("completion", "/v1/completions"),
        ("embedding", "/v1/embeddings"),
        ("messages", "/v1/chat/completions"),
        ("speech", "/v1/audio/speech"),
        ("transcription", "/v1/audio/transcriptions"),
        ("translation", "/v1/audio/translations"),
    ],
)
def test_a_probe_is_due_at_once_and_of_the_kind_that_failed(kind: str, path: str, start_fake: StartFake) -> None:
    fake = start_fake(["a"], api_key="secret")
    node = make_node(fake, api_key="secret")
    exclude(node, kind=kind)
    assert probe() == 1
    assert excluded_of(node) == set()
    (request,) = fake.inferences
    assert request.path == path
    if request.headers["content-type"] == "application/json":
        assert json.loads(request.body).get("max_tokens", 1) == 1
    assert AuditEvent.objects.latest("id").action == "model.reinclude"
    assert row_of("a").failure_count == 1


def test_kinds_that_are_not_probed(start_fake: StartFake) -> None:
    node = make_node(start_fake(["a"]))
    exclude(node, kind="image")
    assert probe() == 0
    assert excluded_of(node) == {"a"}


def test_no_probes_where_they_are_switched_off(start_fake: StartFake, configure: Any) -> None:
    configure(exclusion_probe_max=0)
    node = make_node(start_fake(["a"]))
    exclude(node)
    assert probe() == 0


@pytest.mark.parametrize("status", [NodeStatus.OFFLINE, NodeStatus.PENDING])
def test_only_online_nodes_are_probed(status: str, start_fake: StartFake) -> None:
    exclude(make_node(start_fake(["a"]), status=status))
    assert probe() == 0


@pytest.mark.parametrize("kind", ["chat", "speech", "transcription"])
@pytest.mark.parametrize("mode", ["not_json", "garbage", "cut_in_body", "busy_429", "unknown_model_404", "flap"])
def test_a_probe_that_fails_leaves_it_out(mode: Mode, kind: str, start_fake: StartFake) -> None:
    node = make_node(start_fake(["a"], behaviour=Behaviour(mode=mode)))
    exclude(node, kind=kind)
    assert probe() == 1
    row = row_of("a")
    assert (row.is_excluded, row.probe_failures) == (True, 1)
    assert row.next_probe_at is not None
    assert timedelta(0) < row.next_probe_at - timezone.now() <= timedelta(seconds=1)


def test_the_time_between_probes_doubles_up_to_the_setting(configure: Any) -> None:
    configure(exclusion_probe_max=10)
    assert [probing.next_delay(failures) for failures in (1, 2, 3, 4, 5, 6, 1000)] == [1, 2, 4, 8, 10, 10, 10]


def test_recovery_follows_the_node(start_fake: StartFake) -> None:
    fake = start_fake(["a"], behaviour=Behaviour(status=500, times=2))
    node = make_node(fake)
    exclude(node)
    took = run_ticks(lambda: excluded_of(node) == set(), within=6, every=0.25, tick=tasks.probe_excluded)
    assert 2.5 < took < 5
    assert len(fake.inferences) == 3


def test_a_probe_is_claimed_once_and_one_at_a_time_per_node(start_fake: StartFake) -> None:
    node = make_node(start_fake(["a", "b"]))
    exclude(node, "a")
    exclude(node, "b")
    now = timezone.now()
    assert [len(probing.claim_due_probes(now)) for _ in range(3)] == [1, 1, 0]


def test_a_probe_says_nothing_about_a_later_exclusion(start_fake: StartFake) -> None:
    fake = start_fake(["a"], behaviour=Behaviour(latency=0.5))
    node = make_node(fake)
    exclude(node)
    tasks.probe_excluded()
    services.reinclude_model(node_id=node.pk, model_id="a", actor=SYSTEM)
    time.sleep(0.05)
    exclude(node)
    assert background().wait_idle(5)
    assert excluded_of(node) == {"a"}
