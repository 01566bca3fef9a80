"""Nodes in Django's admin: registering, changing, actions that say what happened."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries

from access.audit import SYSTEM
from access.models import AuditEvent, User
from nodes import services
from nodes.models import Node, NodeModel, NodeStatus, TypeSource
from tests.nodes.conftest import StartFake, excluded_of, make_node, models_of, poll, reloaded

pytestmark = pytest.mark.django_db(transaction=True)
LIST = "admin:nodes_node_changelist"


@pytest.fixture
def browser(ken: User, signed_in: Callable[[User], Client]) -> Client:
    return signed_in(ken)


def form(**values: Any) -> dict[str, Any]:
    return {"name": "gpu-1", "weight": "1", "enabled": "on", "tags": "", "notes": "", **values}


def add(browser: Client, **values: Any) -> Any:
    return browser.post(reverse("admin:nodes_node_add"), form(**values), follow=True)


def act(browser: Client, action: str, *nodes: Any, page: str = LIST) -> str:
    data = {"action": action, "_selected_action": [node.pk for node in nodes]}
    return browser.post(reverse(page), data, follow=True).content.decode()


def test_registering(browser: Client, start_fake: StartFake) -> None:
    fake = start_fake(["a"], api_key="secret")
    answer = add(browser, base_url=fake.url + "/v1", api_key="secret", tags="rack-1, , rack-1", max_concurrency="3")
    assert answer.status_code == 200
    node = Node.objects.get()
    assert (node.base_url, node.status, node.tags, node.max_concurrency) == (fake.url, "online", ["rack-1"], 3)
    assert (node.api_key, node.node_type_source) == ("secret", TypeSource.AUTO)
    assert models_of(node) == {"a"}
    assert AuditEvent.objects.get(action="node.register").actor == "ken"


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://127.0.0.1:9", "refuses connections"),
        ("http://169.254.169.254", "link-local"),
        ("ftp://gpu", "must begin with http"),
    ],
)
def test_a_refusal_is_shown_and_what_was_typed_is_kept(url: str, text: str, browser: Client) -> None:
    page = add(browser, base_url=url, notes="my notes").content.decode()
    assert text in page
    assert "my notes" in page
    assert not Node.objects.exists()


def test_a_taken_name_and_url(browser: Client, start_fake: StartFake) -> None:
    fake = start_fake(["a"])
    make_node(fake, "gpu-1")
    assert "already" in add(browser, base_url=start_fake().url).content.decode()
    assert "already" in add(browser, name="gpu-2", base_url=fake.url).content.decode()
    assert Node.objects.count() == 1


def test_an_unanswering_node_is_kept_by_ticking_a_box(browser: Client, start_fake: StartFake) -> None:
    fake = start_fake(["a"])
    fake.run(fake.kill())
    page = add(browser, base_url=fake.url, allow_unreachable="on").content.decode()
    assert "saved as pending" in page
    node = Node.objects.get()
    assert node.status == NodeStatus.PENDING
    fake.run(fake.start())
    poll()
    assert reloaded(node).status == NodeStatus.ONLINE


def test_changing(browser: Client) -> None:
    node = make_node("http://n1", api_key="secret", models=("a",))
    url = reverse("admin:nodes_node_change", args=[node.pk])
    page = browser.get(url).content.decode()
    assert "secret" not in page
    values = form(name="new", weight="5", tags="x", node_type="vllm", base_url="http://other")
    assert browser.post(url, values, follow=True).status_code == 200
    node = reloaded(node)
    assert (node.name, node.weight, node.tags, node.api_key) == ("new", 5, ["x"], "secret")
    assert (node.node_type, node.node_type_source, node.base_url) == ("vllm", TypeSource.MANUAL, "http://n1")
    browser.post(url, form(name="new", weight="5", tags="x", node_type="vllm", remove_api_key="on"))
    assert reloaded(node).api_key == ""
    browser.post(url, form(name="new", weight="5", tags="x", api_key="other"))
    node = reloaded(node)
    assert (node.api_key, node.node_type_source) == ("other", TypeSource.AUTO)


def test_changing_to_what_cannot_be(browser: Client) -> None:
    make_node("http://n1", "n1")
    node = make_node("http://n2", "n2")
    url = reverse("admin:nodes_node_change", args=[node.pk])
    assert "already exists" in browser.post(url, form(name="n1")).content.decode()
    assert "printable ASCII" in browser.post(url, form(name="n2", api_key="a b")).content.decode()
    assert reloaded(node).name == "n2"


def test_the_list_shows_state_and_counts(browser: Client) -> None:
    make_node("http://n1", "n1", models=("a", "b"))
    make_node("http://n2", "n2")
    make_node("http://n3", "n3", draining=True)
    make_node("http://n4", "n4", status=NodeStatus.OFFLINE)
    services.exclude_model_from_node(node_id=Node.objects.get(name="n1").pk, model_id="a", reason="x")
    page = browser.get(reverse(LIST)).content.decode()
    for text in ("is-online", "online, lists no models", "is-draining", "is-offline", "is-excluded"):
        assert text in page
    assert "style=" not in page.split('id="result_list"')[1].split("</table>")[0]
    assert "n1" in browser.get(reverse(LIST), {"q": "b"}).content.decode().split('id="result_list"')[1]


def test_the_list_is_a_few_queries(browser: Client, django_assert_max_num_queries: DjangoAssertNumQueries) -> None:
    for number in range(30):
        make_node(f"http://n{number}", f"n{number}", models=("a", "b"))
    for page in ("node", "nodemodel", "pollresult", "download"):
        with django_assert_max_num_queries(12):
            assert browser.get(reverse(f"admin:nodes_{page}_changelist")).status_code == 200


def test_sync_says_what_happened_for_each(browser: Client, start_fake: StartFake) -> None:
    live, dead = start_fake(["a", "b"]), start_fake(["c"])
    dead.run(dead.kill())
    page = act(browser, "sync_now", make_node(live, "live", models=("a",)), make_node(dead, "dead"))
    assert "live lists 2 models: 1 new, 0 gone." in page
    assert "dead: The node was not synced: it refuses connections." in page


def test_drain_and_resume(browser: Client) -> None:
    node = make_node("http://n1", "n1")
    assert "n1 is draining." in act(browser, "drain", node)
    assert reloaded(node).draining
    assert "n1 takes requests again." in act(browser, "resume", node)
    assert not reloaded(node).draining


def test_register_again_and_reinclude(browser: Client, start_fake: StartFake) -> None:
    fake = start_fake(["a", "b"])
    node = make_node(fake, "n1")
    services.exclude_model_from_node(node_id=node.pk, model_id="a", reason="x")
    assert "n1 was registered again." in act(browser, "reregister", node)
    assert excluded_of(node) == set()
    for model in ("a", "b"):
        services.exclude_model_from_node(node_id=node.pk, model_id=model, reason="x")
    row = NodeModel.objects.get(model_id="a")
    assert "1 model is back" in act(browser, "reinclude", row, page="admin:nodes_nodemodel_changelist")
    assert excluded_of(node) == {"b"}
    assert "no excluded model" in act(browser, "reinclude", node)
    fake.run(fake.kill())
    assert "n1: The node refuses connections." in act(browser, "reregister", node)


def test_excluded_filter(browser: Client) -> None:
    node = make_node("http://n1", models=("alpha", "beta"))
    services.exclude_model_from_node(node_id=node.pk, model_id="alpha", reason="x")
    page = browser.get(reverse("admin:nodes_nodemodel_changelist"), {"state": "excluded"}).content.decode()
    assert "alpha" in page
    assert "beta" not in page


def test_deleting(browser: Client, start_fake: StartFake) -> None:
    node, other = make_node(start_fake(), "n1"), make_node("http://n2", "n2")
    poll(node)
    node.downloads.create(model="org/new")
    browser.post(reverse("admin:nodes_node_delete", args=[node.pk]), {"post": "yes"})
    data = {"action": "delete_selected", "_selected_action": [other.pk], "post": "yes"}
    browser.post(reverse(LIST), data)
    assert not Node.objects.exists()
    assert AuditEvent.objects.filter(action="node.delete", actor="ken").count() == 2


def test_pages_of_what_is_only_looked_at(browser: Client, start_fake: StartFake) -> None:
    node = make_node(start_fake())
    services.test_node(node_id=node.pk)
    for name in ("nodemodel", "pollresult", "download"):
        assert browser.get(reverse(f"admin:nodes_{name}_add")).status_code == 403
    row = NodeModel.objects.get()
    assert browser.get(reverse("admin:nodes_nodemodel_change", args=[row.pk])).status_code == 200
    result = node.polls.get()
    assert browser.get(reverse("admin:nodes_pollresult_change", args=[result.pk])).status_code == 200
    download = node.downloads.create(model="org/new", total_bytes=4 << 30)
    assert browser.get(reverse("admin:nodes_download_change", args=[download.pk])).status_code == 200
    page = browser.get(reverse("admin:nodes_download_changelist")).content.decode()
    assert "org/new" in page
    assert "4.0\xa0GB" in page


def test_a_viewer_has_no_part_in_it(yui: User, signed_in: Callable[[User], Client]) -> None:
    assert signed_in(yui).get(reverse(LIST)).status_code in {302, 403}


def test_enable_and_disable() -> None:
    node = make_node("http://n1")
    assert not services.disable_node(node_id=node.pk, actor=SYSTEM).enabled
    assert services.enable_node(node_id=node.pk, actor=SYSTEM).enabled
