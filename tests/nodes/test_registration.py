"""Registering a node: everything is asked first, and only then stored, or nothing is."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import connection

from access.audit import SYSTEM
from access.models import AuditEvent
from access.refusals import Conflict, Invalid
from llmlb_site.lib import events
from nodes import services
from nodes.fake_node import Behaviour, FakeNode
from nodes.models import Node, NodeModel, NodeStatus, NodeType, TypeSource
from nodes.refusals import ModelListUnavailable, NodeUnreachable, NoExecutableModels
from tests.nodes.conftest import StartFake, excluded_of, make_node, models_of, reloaded

pytestmark = pytest.mark.django_db(transaction=True)


def register(fake: FakeNode | str, name: str = "gpu-1", **values: Any) -> Node:
    base_url = fake if isinstance(fake, str) else fake.url
    return services.register_node(name=name, base_url=base_url, actor=SYSTEM, **values)


def test_models_engine_and_limits_are_read(start_fake: StartFake) -> None:
    fake = start_fake(["a", "b"], kind="llama_cpp")
    node = reloaded(register(fake.url + "/v1/"))
    assert node.base_url == fake.url
    assert node.status == NodeStatus.ONLINE
    assert (node.node_type, node.node_type_source) == (NodeType.LLAMA_CPP, TypeSource.AUTO)
    assert "total_slots" in node.node_type_reason
    assert node.concurrency_limit == 4
    assert models_of(node) == {"a", "b"}
    assert NodeModel.objects.get(model_id="a").context_length == 4096
    assert node.latency_ms is not None
    assert AuditEvent.objects.get().action == "node.register"


def test_others_are_told(start_fake: StartFake) -> None:
    told: list[str] = []
    ends = [events.subscribe(topic, lambda topic, payload: told.append(topic)) for topic in ("nodes", "models")]
    try:
        register(start_fake())
    finally:
        for end in ends:
            end()
    assert told == ["nodes", "models"]


def test_the_key_is_encrypted_at_rest_and_sent_with_every_call(start_fake: StartFake) -> None:
    fake = start_fake(kind="ollama", api_key="secret-key")
    node = register(fake, api_key="secret-key")
    with connection.cursor() as cursor:
        cursor.execute("SELECT api_key FROM nodes_node")
        assert "secret-key" not in cursor.fetchone()[0]
    assert reloaded(node).api_key == "secret-key"
    assert {request.headers.get("authorization") for request in fake.seen} == {"Bearer secret-key"}


def refused(caplog: pytest.LogCaptureFixture, kind: type[Exception], *args: Any, **values: Any) -> str:
    """The message of the refusal; and nothing is stored, and the log says why without the address."""
    with caplog.at_level(logging.ERROR, "llmlb.nodes"), pytest.raises(kind) as raised:
        register(*args, **values)
    assert not Node.objects.exists()
    assert not AuditEvent.objects.exists()
    (record,) = caplog.records
    assert "gpu-1" in record.getMessage()
    assert "127.0.0.1" not in record.getMessage() + str(raised.value)
    return str(raised.value)


def test_unreachable(start_fake: StartFake, caplog: pytest.LogCaptureFixture) -> None:
    fake = start_fake()
    fake.run(fake.kill())
    assert "refuses connections" in refused(caplog, NodeUnreachable, fake)


def test_an_unknown_name(caplog: pytest.LogCaptureFixture) -> None:
    assert "not known" in refused(caplog, NodeUnreachable, "http://nobody.invalid")


def test_black_hole(start_fake: StartFake, configure: Any, caplog: pytest.LogCaptureFixture) -> None:
    configure(probe_timeout=1)
    started = time.monotonic()
    assert "in time" in refused(caplog, NodeUnreachable, start_fake(behaviour=Behaviour(mode="hang")))
    assert time.monotonic() - started < 2


def test_not_http(start_fake: StartFake, caplog: pytest.LogCaptureFixture) -> None:
    async def garbage(*args: Any) -> bool:
        await args[-1].send(b"SSH-2.0-OpenSSH_9.2\r\n")
        return False

    fake = start_fake()
    fake.answer = garbage  # type: ignore[method-assign, assignment]
    refused(caplog, NodeUnreachable, fake)


@pytest.mark.parametrize(
    "arguments",
    [
        {"behaviour": Behaviour(mode="refuse_models")},
        {"behaviour": Behaviour(mode="garbage_models")},
        {"kind": "web_page"},
        {"kind": "asr"},
        {"api_key": "another"},
    ],
    ids=["500", "html", "web page", "no such page", "wrong key"],
)
def test_no_model_list(arguments: Any, start_fake: StartFake, caplog: pytest.LogCaptureFixture) -> None:
    refused(caplog, ModelListUnavailable, start_fake(**arguments))


@pytest.mark.parametrize("models", [[], ["", " "]])
def test_no_models(models: list[str], start_fake: StartFake, caplog: pytest.LogCaptureFixture) -> None:
    refused(caplog, NoExecutableModels, start_fake(models))


def test_doubles_collapse(start_fake: StartFake) -> None:
    assert models_of(register(start_fake(["a", "", "a"]))) == {"a"}


def test_duplicate_name(start_fake: StartFake) -> None:
    register(start_fake())
    with pytest.raises(ValidationError) as raised:
        register(start_fake(), name=" gpu-1 ")
    assert set(raised.value.message_dict) == {"name"}


def test_duplicate_url_in_another_spelling(start_fake: StartFake) -> None:
    fake = start_fake()
    register(fake)
    with pytest.raises(Conflict) as raised:
        register(f"HTTP://127.1:{fake.port}/v1/", name="gpu-2")
    assert raised.value.field == "base_url"


@pytest.mark.parametrize("url", ["http://169.254.169.254/", "http://[::ffff:169.254.169.254]", "http://2852039166"])
def test_metadata_addresses_are_refused_before_any_connection(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nodes.services.registration.look_at", None)  # would be called to connect
    with pytest.raises(Invalid) as raised:
        register(url)
    assert (raised.value.status, raised.value.code, raised.value.field) == (400, "address_refused", "base_url")


def test_a_name_that_resolves_to_metadata_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmlb_site.lib.node_addresses.resolve_name", lambda host, port: ["169.254.169.254"])
    with pytest.raises(Invalid) as raised:
        register("http://innocent.example")
    assert raised.value.code == "address_refused"


def test_a_name_that_comes_to_lead_to_metadata_is_not_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nodes.client.resolve_name", lambda host, port: ["169.254.169.254"])
    monkeypatch.setattr("llmlb_site.lib.node_addresses.resolve_name", lambda host, port: ["10.0.0.1"])
    with pytest.raises(NodeUnreachable, match="not allowed"):
        register("http://innocent.example")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "x" * 101),
        ("name", "two\nlines"),
        ("weight", 0),
        ("max_concurrency", -1),
        ("health_check_interval", 0),
        ("health_check_interval", 301),
        ("inference_timeout", 9),
        ("inference_timeout", 3601),
        ("tags", "gpu"),
        ("tags", ["x" * 51]),
        ("api_key", "two\r\nlines"),
        ("node_type", "other"),
        ("status", "online"),
    ],
)
def test_values_that_a_field_may_not_have(field: str, value: Any, start_fake: StartFake) -> None:
    fake = start_fake()
    with pytest.raises(ValidationError) as raised:
        register(fake, **{"name": "gpu-1", field: value})
    assert set(raised.value.message_dict) == {field}
    assert fake.seen == []


def test_a_chosen_type_sticks(start_fake: StartFake) -> None:
    node = register(start_fake(kind="llama_cpp"), node_type="vllm")
    assert (node.node_type, node.node_type_source) == (NodeType.VLLM, TypeSource.MANUAL)


def test_an_operator_may_keep_a_node_that_does_not_answer(start_fake: StartFake) -> None:
    fake = start_fake()
    fake.run(fake.kill())
    node = reloaded(register(fake, allow_unreachable=True))
    assert node.status == NodeStatus.PENDING
    assert "refuses connections" in node.last_error
    assert models_of(node) == set()


def test_reregistration_replaces_the_list_and_clears_exclusions(start_fake: StartFake) -> None:
    fake = start_fake(["a", "b"], kind="vllm")
    node = make_node(fake)
    for model in ("a", "b"):
        services.exclude_model_from_node(node_id=node.pk, model_id=model, reason="500")
    fake.models = ["b", "c"]
    services.reregister_node(node_id=node.pk, actor=SYSTEM)
    assert models_of(node) == {"b", "c"}
    assert excluded_of(node) == set()
    assert reloaded(node).node_type == NodeType.VLLM


@pytest.mark.parametrize("mode", ["refuse_models", "empty_models", "garbage_models"])
def test_a_reregistration_that_fails_changes_nothing(mode: Any, start_fake: StartFake) -> None:
    fake = start_fake(["a"], behaviour=Behaviour(mode=mode))
    node = make_node(fake)
    services.exclude_model_from_node(node_id=node.pk, model_id="a", reason="500")
    with pytest.raises((ModelListUnavailable, NoExecutableModels)):
        services.reregister_node(node_id=node.pk, actor=SYSTEM)
    assert models_of(node) == excluded_of(node) == {"a"}
