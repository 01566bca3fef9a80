"""What nodes say that their models can do, and what a person says instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from access.audit import SYSTEM
from access.models import AuditEvent, User
from access.refusals import Refusal
from llmlb_site.lib.models import Revision
from nodes import services
from nodes.models import Node, NodeModel, NodeType
from nodes.reported import read_pages
from tests.nodes.conftest import StartFake, make_node, poll

pytestmark = pytest.mark.django_db(transaction=True)


def told(node: Node) -> dict[str, dict[str, bool]]:
    return dict(NodeModel.objects.filter(node=node).values_list("model_id", "reported_capabilities"))


def register(fake: Any) -> Node:
    return services.register_node(name=fake.kind.owned_by, base_url=fake.url, actor=SYSTEM)


def test_llama_cpp_tells_whether_its_model_sees(start_fake: StartFake) -> None:
    assert told(register(start_fake(["it-sees"], kind="llama_cpp"))) == {"it-sees": {"vision": True}}


def test_a_llama_cpp_of_several_models_tells_nothing_of_each(start_fake: StartFake) -> None:
    assert told(register(start_fake(["a", "it-sees"], kind="llama_cpp"))) == {"a": {}, "it-sees": {}}


def test_lm_studio_tells_the_kind_of_each(start_fake: StartFake) -> None:
    assert told(register(start_fake(["a", "it-sees", "embed"], kind="lm_studio"))) == {
        "a": {"text": True, "vision": False, "tools": True},
        "it-sees": {"text": True, "vision": True, "tools": True},
        "embed": {"embedding": True, "text": False, "vision": False},
    }


def test_an_older_lm_studio_tells_less() -> None:
    page = {
        "data": [{"id": "a", "type": "llm"}, {"id": "b", "type": "vlm"}, {"id": "c", "type": "embeddings"}, {"id": 5}]
    }
    assert read_pages({"/api/v0/models": page}, [], NodeType.LM_STUDIO) == {
        "a": {"text": True},
        "b": {"text": True, "vision": True},
        "c": {"embedding": True, "text": False, "vision": False},
    }


def test_ollama_is_asked_for_each(start_fake: StartFake) -> None:
    assert told(register(start_fake(["a", "it-sees", "embed"], kind="ollama"))) == {
        "a": {"text": True, "vision": False, "tools": True},
        "it-sees": {"text": True, "vision": True, "tools": True},
        "embed": {"text": False, "vision": False, "tools": False, "embedding": True},
    }


def test_other_engines_tell_nothing(start_fake: StartFake) -> None:
    assert told(register(start_fake(["it-sees"], kind="vllm"))) == {"it-sees": {}}


def test_a_model_that_comes_later_is_asked_about_too(start_fake: StartFake) -> None:
    fake = start_fake(["a"], kind="ollama")
    node = register(fake)
    fake.models.append("it-sees")
    before = Revision.objects.get(topic="models").number
    poll(node)
    assert told(node)["it-sees"]["vision"]
    assert Revision.objects.get(topic="models").number > before


def test_a_sync_asks_again(start_fake: StartFake) -> None:
    node = register(start_fake(["it-sees"], kind="ollama"))
    NodeModel.objects.update(reported_capabilities={})
    services.sync_node(node_id=node.pk, actor=SYSTEM)
    assert told(node)["it-sees"]["vision"]


@pytest.mark.parametrize("props", [None, [], {"modalities": "vision"}, {"modalities": {"vision": "yes"}}])
def test_pages_of_another_shape_tell_nothing(props: Any) -> None:
    assert read_pages({"/props": props, "/api/v1/models": props}, ["a"], NodeType.LLAMA_CPP) == {}
    assert read_pages({"/props": props, "/api/v1/models": props}, ["a"], NodeType.LM_STUDIO) == {}


# --- a person's word


def test_an_operator_sets_it_over_the_api(ken: User, signed_in: Callable[[User], Client]) -> None:
    node = make_node("http://127.0.0.1:9", models=("org/model:1", "b"))
    change = {"model": "org/model:1", "capabilities": ["vision", "text"]}
    answer = signed_in(ken).patch(f"/api/nodes/{node.pk}/models", change, content_type="application/json")
    assert (answer.status_code, answer.json()["capabilities"]) == (200, ["text", "vision"])
    assert NodeModel.objects.get(model_id="b").capabilities == []
    event = AuditEvent.objects.get(action="node.set_capabilities")
    assert (event.actor, event.target, event.details["model"]) == ("ken", "gpu-1", "org/model:1")
    assert Revision.objects.get(topic="models").number


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"model": "a", "capabilities": ["telepathy"]}, 400),
        ({"model": "a"}, 400),
        ({"model": "z", "capabilities": []}, 404),
    ],
)
def test_what_cannot_be_set(
    ken: User, signed_in: Callable[[User], Client], change: dict[str, Any], status: int
) -> None:
    node = make_node("http://127.0.0.1:9", models=("a",))
    answer = signed_in(ken).patch(f"/api/nodes/{node.pk}/models", change, content_type="application/json")
    assert answer.status_code == status


def test_a_viewer_may_not(yui: User, signed_in: Callable[[User], Client]) -> None:
    node = make_node("http://127.0.0.1:9", models=("a",))
    change = {"model": "a", "capabilities": ["text"]}
    answer = signed_in(yui).patch(f"/api/nodes/{node.pk}/models", change, content_type="application/json")
    assert answer.status_code == 403


def test_the_service_refuses_a_word_that_it_does_not_know() -> None:
    node = make_node("http://127.0.0.1:9", models=("a",))
    with pytest.raises(Refusal, match="telepathy"):
        services.set_capabilities(node_id=node.pk, model_id="a", capabilities=["telepathy"], actor=SYSTEM)


def test_an_operator_sets_it_in_the_admin(ken: User, signed_in: Callable[[User], Client]) -> None:
    make_node("http://127.0.0.1:9", models=("a",))
    row = NodeModel.objects.get()
    NodeModel.objects.update(reported_capabilities={"vision": False, "tools": True})
    browser = signed_in(ken)
    page = reverse("admin:nodes_nodemodel_change", args=[row.pk])
    assert "tools, (vision: ✕)" in browser.get(page).content.decode()
    answer = browser.post(page, {"capabilities": ["text", "vision"]}, follow=True)
    assert answer.status_code == 200
    row.refresh_from_db()
    assert row.capabilities == ["text", "vision"]
    assert AuditEvent.objects.get(action="node.set_capabilities").actor == "ken"


def test_the_node_page_leads_there(ken: User, yui: User, signed_in: Callable[[User], Client]) -> None:
    node = make_node("http://127.0.0.1:9", models=("a",))
    link = f"{reverse('admin:nodes_nodemodel_changelist')}?node__id__exact={node.pk}"
    assert link in signed_in(ken).get(reverse("node", args=[node.pk])).content.decode()
    assert link not in signed_in(yui).get(reverse("node", args=[node.pk])).content.decode()
