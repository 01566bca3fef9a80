"""What a node of llmlb's own kind tells of itself is kept, shown fresh, and forgotten when it is old."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from access.audit import SYSTEM
from nodes import services
from nodes.fake_node import Behaviour, FakeNode
from nodes.models import Node, NodeModel
from nodes.telling import facts_of, refused_of
from routing.snapshot import node_entry
from tests.nodes.conftest import StartFake, make_node, poll, reloaded

pytestmark = pytest.mark.django_db(transaction=True)


def registered(start_fake: StartFake, name: str = "own") -> tuple[Node, FakeNode]:
    fake = start_fake(["org/chat", "org/embed"], kind="xllm")
    return services.register_node(name=name, base_url=fake.url, actor=SYSTEM), fake


def test_registration_reads_devices_use_and_what_is_refused(start_fake: StartFake) -> None:
    node, _fake = registered(start_fake)
    assert (node.node_type, node.gpu_backend, node.gpu_count, node.gpu_score) == ("xllm", "cuda", 2, 9000)
    assert "xllm_version" in node.node_type_reason
    assert (node.gpu_usage, node.gpu_memory_used, node.memory_used) == (35.0, 12 << 30, 16 << 30)
    assert [device["name"] for device in node.devices] == ["NVIDIA RTX 4090"] * 2
    assert node.refused_models == [{"model": "org/broken", "reason": "model.gguf is cut off"}]
    assert node.figures_at is not None
    assert node.concurrency_limit == 1


def test_capabilities_come_from_the_list(start_fake: StartFake) -> None:
    node, _fake = registered(start_fake)
    told = dict(NodeModel.objects.filter(node=node).values_list("model_id", "reported_capabilities"))
    assert (told["org/chat"]["text"], told["org/chat"]["embedding"]) == (True, False)
    assert (told["org/embed"]["text"], told["org/embed"]["embedding"]) == (False, True)


def test_each_check_brings_new_figures(start_fake: StartFake) -> None:
    fake = start_fake(["a"], kind="xllm")
    node = make_node(fake, node_type="xllm")
    poll()
    fake.own.usage, fake.own.loaded = 95.0, ["a"]
    poll()
    node = reloaded(node)
    assert (node.gpu_usage, node.loaded_models, node.active_requests) == (95.0, ["a"], 0)


def test_another_number_of_refused_models_is_looked_into(start_fake: StartFake) -> None:
    fake = start_fake(["a"], kind="xllm")
    node = make_node(fake, node_type="xllm")
    poll()
    assert [entry["model"] for entry in reloaded(node).refused_models] == ["org/broken"]
    fake.own.refused = {}
    poll()
    assert reloaded(node).refused_models == []


def test_routing_gets_the_figures_while_they_are_fresh(start_fake: StartFake) -> None:
    node, _fake = registered(start_fake)
    entry = node_entry(reloaded(node))
    assert (entry.gpu_usage, entry.gpu_memory, entry.gpu_score) == (35.0, 25.0, 9000)
    Node.objects.update(figures_at=timezone.now() - timedelta(seconds=31))
    entry = node_entry(reloaded(node))
    assert (entry.gpu_usage, entry.gpu_memory) == (0.0, 0.0)


def test_figures_that_cannot_be_are_not_known() -> None:
    health = {"gpu": {"usage": 250, "used_memory_bytes": -1, "device_count": "two"}, "memory": [], "loaded_models": 5}
    facts = facts_of(health, {"devices": "none", "max_concurrency": 2**40})
    assert (facts.gpu_usage, facts.gpu_memory_used, facts.gpu_count, facts.concurrency) == (None, None, None, None)
    assert (facts.devices, facts.loaded_models) == (None, None)


def test_what_no_database_takes_is_not_kept() -> None:
    """PostgreSQL refuses NUL and lone surrogates: a node that says such things must not break its checks."""
    bad = "a\0b\ud800c"
    gpu = {"backend": "cuda", "devices": [{"name": bad}]}
    facts = facts_of({"started_at": bad, "gpu": gpu, "loaded_models": [bad]}, {})
    refused = refused_of({"models": [{"id": bad, "executable": False, "reason": bad}]})
    assert facts.devices is not None
    assert (facts.started_at, facts.loaded_models, facts.devices[0]["name"]) == ("a?b?c", ("a?b?c",), "a?b?c")
    assert refused == [{"model": "a?b?c", "reason": "a?b?c"}]


def test_upstreams_form_of_the_same_pages_is_understood() -> None:
    gpu = {"device_count": 1, "total_memory_bytes": 100, "used_memory_bytes": 40, "capability_score": 9170}
    facts = facts_of(
        {"gpu": gpu, "load": {"active_requests": 3}}, {"devices": [{"name": "RTX 3080", "memory_bytes": 100}]}
    )
    assert (facts.active_requests, facts.gpu_score, facts.gpu_memory_used) == (3, 9170, 40)
    assert facts.devices is not None
    assert facts.devices[0]["memory_total"] == 100


@pytest.mark.parametrize("document", [None, [], {}, {"models": None}, {"models": [1, {"id": 5, "executable": False}]}])
def test_a_list_that_is_none_refuses_nothing(document: object) -> None:
    assert refused_of(document) == []


def test_a_node_that_falls_silent_keeps_its_reasons(start_fake: StartFake) -> None:
    node, fake = registered(start_fake)
    fake.behaviour = Behaviour(mode="refuse_models")
    poll()
    assert reloaded(node).refused_models
