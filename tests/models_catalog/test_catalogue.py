"""Registering models and giving them other names: what is refused, what is audited, who is told."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from access.audit import Actor
from access.models import AuditEvent, User
from access.refusals import Conflict, Invalid, Refusal
from llmlb_site.lib.models import Revision
from models_catalog import services
from models_catalog.models import CatalogModel, ModelAlias
from models_catalog.queries import fleet_models
from nodes.models import Node, NodeModel, NodeStatus


@pytest.fixture
def actor(ken: User) -> Actor:
    return Actor.user(ken)


@pytest.fixture
def node(db: None) -> Node:
    made = Node.objects.create(name="left", base_url="http://10.0.0.1", status=NodeStatus.ONLINE)
    NodeModel.objects.create(node=made, model_id="llama3.2:3b")
    return made


def revision() -> int:
    return Revision.objects.get(topic="models").number


def test_an_alias_is_kept_audited_and_told(actor: Actor, node: Node) -> None:
    services.add_alias(alias=" gpt-4o ", model_id="llama3.2:3b", actor=actor)
    assert ModelAlias.objects.get().alias == "gpt-4o"
    assert AuditEvent.objects.get(action="alias.add").target == "gpt-4o"
    before = revision()
    services.remove_alias(alias="gpt-4o", actor=actor)
    assert not ModelAlias.objects.exists()
    assert revision() == before + 1


def test_an_alias_may_come_before_its_model(actor: Actor) -> None:
    services.add_alias(alias="small", model_id="not-yet-there", actor=actor)
    assert [model.model_id for model in fleet_models()] == ["not-yet-there"]


@pytest.mark.parametrize(
    ("alias", "model_id", "kind", "field"),
    [
        ("", "llama3.2:3b", Invalid, "alias"),
        ("x" * 301, "llama3.2:3b", Invalid, "alias"),
        ("same", "same", Invalid, "alias"),
        ("second", "first", Invalid, "model_id"),
        ("first", "llama3.2:3b", Conflict, "alias"),
        ("llama3.2:3b", "other", Conflict, "alias"),
        ("registered", "other", Conflict, "alias"),
        ("pointed-to", "other", Conflict, "alias"),
    ],
)
def test_aliases_that_would_confuse(
    actor: Actor, node: Node, alias: str, model_id: str, kind: type[Refusal], field: str
) -> None:
    services.add_alias(alias="first", model_id="pointed-to", actor=actor)
    services.register_model(model_id="registered", actor=actor)
    with pytest.raises(kind) as refused:
        services.add_alias(alias=alias, model_id=model_id, actor=actor)
    assert refused.value.field == field
    assert ModelAlias.objects.count() == 1


def test_registering_and_removing_a_model(actor: Actor) -> None:
    services.register_model(model_id="deepseek-r1", description=" soon ", capabilities=["text"], actor=actor)
    assert CatalogModel.objects.get().description == "soon"
    with pytest.raises(Conflict):
        services.register_model(model_id="deepseek-r1", actor=actor)
    services.remove_model(model_id="deepseek-r1", actor=actor)
    with pytest.raises(services.NoSuchEntry):
        services.remove_model(model_id="deepseek-r1", actor=actor)
    with pytest.raises(services.NoSuchEntry):
        services.remove_alias(alias="nobody", actor=actor)
    assert list(
        AuditEvent.objects.filter(action__startswith="model.").values_list("action", flat=True).order_by("id")
    ) == [
        "model.register",
        "model.remove",
    ]


def test_a_capability_that_does_not_exist_is_refused(actor: Actor) -> None:
    with pytest.raises(Invalid, match="telepathy"):
        services.register_model(model_id="m", capabilities=["telepathy"], actor=actor)


def test_the_fleet_as_one_list(actor: Actor, node: Node) -> None:
    right = Node.objects.create(name="right", base_url="http://10.0.0.2", status=NodeStatus.OFFLINE)
    NodeModel.objects.create(node=right, model_id="llama3.2:3b")
    NodeModel.objects.create(
        node=node, model_id="Bge-m3", excluded_reason="it answered 500", excluded_at=node.registered_at
    )
    services.add_alias(alias="gpt-4o", model_id="llama3.2:3b", actor=actor)
    services.register_model(model_id="llama3.2:3b", capabilities=["rerank"], actor=actor)
    bge, llama = fleet_models()
    assert (bge.model_id, bge.routable, len(bge.excluded), bge.capabilities) == ("Bge-m3", [], 1, ["embedding"])
    assert [holding.node_model.node.name for holding in llama.holders] == ["left", "right"]
    assert [holding.node_model.node.name for holding in llama.routable] == ["left"]
    assert llama.capabilities == ["rerank"]  # what a person entered counts
    assert [model.model_id for model in fleet_models("GPT")] == ["llama3.2:3b"]


def test_what_the_node_says_counts_more_than_the_name(node: Node) -> None:
    NodeModel.objects.filter(node=node).update(capabilities=["embedding"])
    assert fleet_models()[0].capabilities == ["embedding"]


@pytest.mark.django_db
def test_the_admin_refuses_what_the_services_refuse(signed_in: Callable[..., object], hana: User, actor: Actor) -> None:
    services.add_alias(alias="first", model_id="pointed-to", actor=actor)
    browser = signed_in(hana)
    answer = browser.post("/admin/models_catalog/modelalias/add/", {"alias": "pointed-to", "model_id": "other"})  # type: ignore[attr-defined]
    assert "Other aliases point to this name." in answer.content.decode()
    assert ModelAlias.objects.count() == 1
