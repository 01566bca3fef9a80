"""The models page: the fleet's models, aliases and catalogue, for those who may."""

from __future__ import annotations

from collections.abc import Callable

from django.test import Client

from access.models import User
from models_catalog.models import CatalogModel, ModelAlias
from nodes.capabilities import PHRASES
from nodes.capability_labels import LABELS
from nodes.models import NodeStatus
from tests.site.fleet import make_node

SignIn = Callable[[User], Client]


def test_where_each_model_is(signed_in: SignIn, yui: User) -> None:
    make_node("left", "llama3", excluded=("bge-m3",))
    make_node("right", "llama3", status=NodeStatus.OFFLINE)
    CatalogModel.objects.create(model_id="deepseek-r1")
    text = signed_in(yui).get("/models/").content.decode()
    assert "no node has it" in text
    assert "not routable" in text
    assert "(offline)" in text
    assert "embeddings" in text
    assert "/models/aliases" not in text


def test_searching_by_alias(signed_in: SignIn, yui: User) -> None:
    make_node("left", "llama3", "qwen")
    ModelAlias.objects.create(alias="gpt-4o", model_id="llama3")
    text = signed_in(yui).get("/models/?q=GPT").content.decode()
    assert "llama3" in text
    assert "qwen" not in text
    assert "No model of that name" in signed_in(yui).get("/models/?q=zzz").content.decode()


def test_an_operator_adds_and_removes_an_alias(signed_in: SignIn, ken: User) -> None:
    make_node("left", "llama3")
    browser = signed_in(ken)
    assert 'value="llama3"' in browser.get("/models/aliases/add?model=llama3").content.decode()
    assert browser.post("/models/aliases/add", {"alias": "gpt-4o", "model_id": "llama3"})["Location"] == "/models/"
    again = browser.post("/models/aliases/add", {"alias": "gpt-4o", "model_id": "llama3"})
    assert again.status_code == 422
    assert "This alias exists already." in again.content.decode()
    browser.post("/models/aliases/remove", {"alias": "gpt-4o"})
    assert not ModelAlias.objects.exists()
    assert (
        "There is no such alias."
        in browser.post("/models/aliases/remove", {"alias": "x"}, follow=True).content.decode()
    )


def test_an_operator_registers_and_removes_a_model(signed_in: SignIn, ken: User) -> None:
    browser = signed_in(ken)
    browser.post("/models/register", {"model_id": "deepseek-r1", "capabilities": ["text"]})
    assert CatalogModel.objects.get().capabilities == ["text"]
    assert browser.post("/models/register", {"model_id": "deepseek-r1"}).status_code == 422
    browser.post("/models/remove", {"model_id": "deepseek-r1"})
    assert not CatalogModel.objects.exists()
    answer = browser.post("/models/remove", {"model_id": "deepseek-r1"}, follow=True)
    assert "This model is not registered." in answer.content.decode()


def test_a_viewer_may_change_nothing(signed_in: SignIn, yui: User) -> None:
    browser = signed_in(yui)
    for path in ("aliases/add", "aliases/remove", "register", "remove"):
        assert browser.post(f"/models/{path}", {"alias": "a", "model_id": "b"}).status_code == 403
    assert not ModelAlias.objects.exists()


def test_what_a_model_can_do_is_said_in_the_readers_language(signed_in: SignIn, ken: User) -> None:
    make_node("left", "bge-m3")
    browser = signed_in(ken)
    for path in ("/models/", "/models/register", "/admin/models_catalog/catalogmodel/add/"):
        text = browser.get(path, headers={"Accept-Language": "ja"}).content.decode()
        assert "埋め込み" in text, path
        assert "embedding<" not in text, path


def test_every_capability_has_a_label() -> None:
    assert {word: str(label) for word, label in LABELS.items()} == PHRASES
