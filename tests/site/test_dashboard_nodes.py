"""Nodes: list and filters, one node, the forms, what can be done to one and by whom."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from unittest.mock import patch

import pytest
from django.contrib.messages import get_messages
from django.test import Client
from django.utils import timezone

from access.models import AuditEvent, User
from nodes.fake_node import FakeNode, running_fake_node
from nodes.models import Node, NodeStatus, NodeType, PollResult, TypeSource
from routing.live import LiveView
from tests.site.fleet import make_node, make_request

SignIn = Callable[[User], Client]


@pytest.fixture
def fake() -> Iterator[FakeNode]:
    with running_fake_node(["model-a", "model-b"]) as node:
        yield node


def text_of(browser: Client, path: str) -> str:
    return browser.get(path).content.decode()


def said(answer: object) -> str:
    """The last thing that the next page will say."""
    told = [str(message) for message in get_messages(answer.wsgi_request)]  # type: ignore[attr-defined]
    return told[-1] if told else ""


@pytest.fixture
def fleet(db: None) -> dict[str, Node]:
    made = [
        make_node("alpha", "llama3", node_type=NodeType.OLLAMA),
        make_node("beta", "qwen", excluded=("bge",), status=NodeStatus.OFFLINE),
        make_node("gamma", status=NodeStatus.PENDING, enabled=False),
        make_node("delta", "llama3", draining=True, notes="in the cellar"),
    ]
    return {node.name: node for node in made}


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("", "alpha beta gamma delta"),
        ("?q=ALPH", "alpha"),
        ("?q=llama3", "alpha delta"),
        ("?q=cellar", "delta"),
        ("?q=10.9.8.7:8001", "beta"),
        ("?status=online", "alpha delta"),
        ("?status=draining", "delta"),
        ("?status=disabled", "gamma"),
        ("?status=offline&q=qwen", "beta"),
        ("?type=ollama", "alpha"),
        ("?excluded=on", "beta"),
        ("?status=nonsense", "alpha beta gamma delta"),
        ("?q=nothing-like-it", ""),
    ],
)
def test_the_list_can_be_narrowed(signed_in: SignIn, yui: User, fleet: dict[str, Node], query: str, shown: str) -> None:
    text = text_of(signed_in(yui), f"/nodes/{query}")
    assert {name for name in fleet if f">{name}</a>" in text} == set(shown.split())


def test_a_long_list_has_pages_that_keep_the_filter(signed_in: SignIn, yui: User) -> None:
    for number in range(60):
        make_node(f"node-{number:02}")
    text = text_of(signed_in(yui), "/nodes/?q=node")
    assert "1–50 / 60" in text
    assert "?q=node&amp;page=2" in text
    assert "node-59" in text_of(signed_in(yui), "/nodes/?q=node&page=2")


def test_one_node_with_all_that_is_known(signed_in: SignIn, yui: User, ken: User, fleet: dict[str, Node]) -> None:
    node = fleet["beta"]
    PollResult.objects.create(node=node, ok=False, error="timed out", status_before="online", status_after="offline")
    make_request(node_id=node.pk, node_name="beta", model="qwen-asked")
    text = text_of(signed_in(yui), f"/nodes/{node.pk}/")
    assert "timed out" in text
    assert "it answered 500" in text
    assert "qwen-asked" not in text
    assert "qwen-asked" in text_of(signed_in(ken), f"/nodes/{node.pk}/")


def test_in_flight_is_what_the_gateway_says(signed_in: SignIn, yui: User, fleet: dict[str, Node]) -> None:
    node = fleet["alpha"]
    with patch("routing.live.view", return_value=LiveView(in_flight={node.pk: 3}, waiting=7)):
        assert "3 of 4 in flight" in text_of(signed_in(yui), "/nodes/")
        assert "7 waiting" in text_of(signed_in(yui), "/")


def test_an_unknown_node_is_a_page(signed_in: SignIn, yui: User) -> None:
    answer = signed_in(yui).get("/nodes/4711/")
    assert answer.status_code == 404
    assert "There is nothing at this address" in answer.content.decode()


def test_an_open_page_of_a_node_that_is_gone_leads_to_the_list(signed_in: SignIn, yui: User) -> None:
    answer = signed_in(yui).get("/nodes/4711/", headers={"HX-Request": "true"})
    assert (answer.status_code, answer["HX-Redirect"]) == (204, "/nodes/")


@pytest.mark.django_db(transaction=True)
def test_adding_a_node_finds_its_models(signed_in: SignIn, ken: User, fake: FakeNode) -> None:
    answer = signed_in(ken).post(
        "/nodes/add", {"name": "new", "base_url": f"{fake.url}/v1/", "tags": "a, b,", "weight": ""}
    )
    node = Node.objects.get()
    assert answer["Location"] == f"/nodes/{node.pk}/"
    assert said(answer) == "new is registered with 2 models."
    assert (node.base_url, node.tags, node.weight, node.status) == (fake.url, ["a", "b"], 1, NodeStatus.ONLINE)
    assert AuditEvent.objects.get(action="node.register").actor == "ken"


@pytest.mark.django_db(transaction=True)
def test_every_refusal_is_said_beside_its_field(signed_in: SignIn, ken: User, fake: FakeNode) -> None:
    browser = signed_in(ken)
    browser.post("/nodes/add", {"name": "first", "base_url": fake.url})

    def refused(**fields: str) -> str:
        answer = browser.post("/nodes/add", fields)
        assert answer.status_code == 422
        return answer.content.decode()

    assert "with this base URL already" in refused(name="second", base_url=fake.url)
    assert 'id="id_base_url_error"' in refused(name="second", base_url="http://169.254.169.254")
    assert "This field is required." in refused(base_url="http://127.0.0.1:9")
    assert "The node" in refused(name="second", base_url="http://127.0.0.1:9")
    assert 'id="id_name_error"' in refused(name="first", base_url="http://127.0.0.1:9")
    assert 'id="id_weight_error"' in refused(name="second", base_url="http://127.0.0.1:9", weight="0")
    assert Node.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_changing_a_node(signed_in: SignIn, ken: User) -> None:
    node = make_node("old", "m", api_key="secret-of-old", node_type=NodeType.VLLM)
    browser = signed_in(ken)
    form = text_of(browser, f"/nodes/{node.pk}/change")
    assert "secret-of-old" not in form
    browser.post(f"/nodes/{node.pk}/change", {"name": "new", "weight": "3", "node_type": "ollama", "notes": "hello"})
    node.refresh_from_db()
    assert (node.name, node.weight, node.notes, node.api_key) == ("new", 3, "hello", "secret-of-old")
    assert (node.node_type, node.node_type_source) == (NodeType.OLLAMA, TypeSource.MANUAL)
    browser.post(f"/nodes/{node.pk}/change", {"name": "new", "forget_api_key": "on"})
    node.refresh_from_db()
    assert node.api_key == ""
    answer = browser.post(f"/nodes/{node.pk}/change", {"name": "", "inference_timeout": "1"})
    assert answer.status_code == 422


@pytest.mark.django_db(transaction=True)
def test_deleting_asks_first(signed_in: SignIn, ken: User) -> None:
    node = make_node("old", "m")
    browser = signed_in(ken)
    assert "Delete old?" in text_of(browser, f"/nodes/{node.pk}/delete")
    assert Node.objects.exists()
    answer = browser.post(f"/nodes/{node.pk}/delete")
    assert answer["Location"] == "/nodes/"
    assert "old is deleted" in said(answer)
    assert not Node.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_actions_say_what_happened(signed_in: SignIn, ken: User, fake: FakeNode) -> None:
    node = make_node("left", "model-a", "gone", base_url=fake.url)
    browser = signed_in(ken)

    def act(action: str, **fields: str) -> str:
        answer = browser.post(f"/nodes/{node.pk}/actions/{action}", fields)
        assert answer["Location"] == f"/nodes/{node.pk}/"
        return said(answer)

    assert act("sync") == "left lists 2 models: 1 new, 1 gone."
    assert "left answered in" in act("test")
    assert "takes no new requests" in act("drain")
    assert Node.objects.get().draining
    assert "takes requests again" in act("resume")
    assert "is disabled" in act("disable")
    assert "is enabled" in act("enable")
    node.models.filter(model_id="model-a").update(excluded_at=timezone.now())
    assert act("reinclude", model="model-a") == "1 model is back in routing on left."
    assert "Nothing was excluded" in act("reinclude")
    assert "There is no such" in act("reinclude", model="nobody") or "no such model" in act("reinclude", model="nobody")
    assert "asked for everything anew" in act("reregister")
    fake.behaviour.mode = "garbage_models"
    assert "left failed the test" in act("test")
    assert "not synced" in act("sync")


def test_an_action_goes_back_to_where_its_button_was(signed_in: SignIn, ken: User, fleet: dict[str, Node]) -> None:
    browser, path = signed_in(ken), f"/nodes/{fleet['beta'].pk}/actions/reinclude"
    assert browser.post(path, {"next": "/"})["Location"] == "/"
    assert browser.post(path, {"next": "https://evil.example/"})["Location"] == f"/nodes/{fleet['beta'].pk}/"
    assert browser.post(path, {"next": "//evil.example/"})["Location"] == f"/nodes/{fleet['beta'].pk}/"


def test_unknown_actions_and_get_are_refused(signed_in: SignIn, ken: User, fleet: dict[str, Node]) -> None:
    node = fleet["alpha"]
    assert signed_in(ken).post(f"/nodes/{node.pk}/actions/explode").status_code == 404
    assert signed_in(ken).get(f"/nodes/{node.pk}/actions/drain").status_code == 405
    assert not Node.objects.get(pk=node.pk).draining


def test_a_viewer_sees_no_button_and_is_refused(signed_in: SignIn, yui: User, fleet: dict[str, Node]) -> None:
    browser, node = signed_in(yui), fleet["beta"]
    text = text_of(browser, f"/nodes/{node.pk}/") + text_of(browser, "/nodes/") + text_of(browser, "/")
    assert "/actions/" not in text
    assert "/nodes/add" not in text
    assert "/change" not in text
    assert "/delete" not in text
    for path in ("actions/drain", "actions/reinclude", "change", "delete"):
        assert browser.post(f"/nodes/{node.pk}/{path}").status_code == 403
    assert browser.get("/nodes/add").status_code == 403
    assert browser.post("/nodes/add", {"name": "x", "base_url": "http://127.0.0.1:9"}).status_code == 403


def test_a_post_without_the_token_is_refused(ken: User, fleet: dict[str, Node]) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(ken)
    answer = browser.post(f"/nodes/{fleet['alpha'].pk}/actions/drain")
    assert answer.status_code == 403
    assert "This form had expired" in answer.content.decode()
    assert not Node.objects.filter(name="alpha", draining=True).exists()
