"""`/api/nodes`, and the same at `/api/endpoints`: who may, what it says, what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from access.models import AuditEvent, User
from access.permissions import Permission
from nodes import services
from nodes.fake_node import Behaviour
from nodes.models import Node, NodeStatus, NodeType
from tests.nodes.conftest import StartFake, excluded_of, make_node, models_of, reloaded

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def api(ken: User, signed_in: Callable[[User], Client]) -> Client:
    """An operator's browser."""
    return signed_in(ken)


def post(api: Client, path: str, data: Any = None) -> Any:
    return api.post(path, data or {}, content_type="application/json")


def error_of(answer: Any) -> tuple[int, str]:
    error = answer.json()["error"]
    assert error["message"]
    return answer.status_code, error["code"]


@pytest.mark.parametrize("word", ["nodes", "endpoints"])
def test_life_of_a_node(word: str, api: Client, start_fake: StartFake) -> None:
    fake = start_fake(["a", "b"], kind="ollama", api_key="secret")
    answer = post(
        api,
        f"/api/{word}",
        {
            "name": "gpu-1",
            "base_url": fake.url + "/v1",
            "api_key": "secret",
            "tags": ["rack-1"],
            "health_check_interval_secs": 9,
            "inference_timeout_secs": 30,
        },
    )
    assert answer.status_code == 201
    node = answer.json()
    assert node["base_url"] == fake.url
    assert (node["node_type"], node["endpoint_type"], node["endpoint_type_source"]) == ("ollama", "ollama", "auto")
    assert (node["status"], node["model_count"], node["executable_models"]) == ("online", 2, ["a", "b"])
    assert (node["health_check_interval_secs"], node["inference_timeout_secs"]) == (9, 30)
    assert (node["concurrency_limit"], node["tags"], node["excluded_models"]) == (4, ["rack-1"], [])
    assert "api_key" not in node
    assert node["has_api_key"] is True
    assert node["models"][0]["model_id"] == "a"
    assert "secret" not in answer.content.decode()
    path = f"/api/{word}/{node['id']}"
    assert api.get(path).json()["name"] == "gpu-1"
    assert api.get(f"{path}/models").json()["total"] == 2
    changed = api.patch(path, {"notes": "new", "api_key": None}, content_type="application/json").json()
    assert (changed["notes"], changed["has_api_key"], changed["tags"]) == ("new", False, ["rack-1"])
    assert api.delete(path).status_code == 204
    assert error_of(api.get(path)) == (404, "not_found")
    assert AuditEvent.objects.filter(actor="ken").values_list("action", flat=True).count() == 3


def test_list_under_both_names(api: Client) -> None:
    make_node("http://n1", "n1", models=("a",))
    body = api.get("/api/nodes").json()
    assert body["total"] == 1
    assert body["nodes"] == body["endpoints"]
    assert api.get("/api/endpoints").json() == body


def test_a_list_of_many_nodes_is_a_few_queries(
    api: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(20):
        make_node(f"http://n{number}", f"n{number}", models=("a", "b"))
    with django_assert_max_num_queries(6):
        assert api.get("/api/nodes").json()["total"] == 20


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("status=offline", ["n2"]),
        ("type=vllm", ["n1"]),
        ("tag=rack", ["n1"]),
        ("tag=rac", []),
        ("model=b", ["n2"]),
        ("model=B", []),
        ("search=N2", ["n2"]),
        ("search=first", ["n1"]),
        ("status=online&model=a", ["n1"]),
        ("", ["n1", "n2"]),
    ],
)
def test_filters(query: str, expected: list[str], api: Client) -> None:
    make_node("http://host-1", "n1", models=("a",), node_type=NodeType.VLLM, tags=["rack"], notes="the first")
    make_node("http://host-2", "n2", models=("a", "b"), status=NodeStatus.OFFLINE)
    assert [node["name"] for node in api.get(f"/api/nodes?{query}").json()["nodes"]] == expected


@pytest.mark.parametrize("query", ["status=gone", "type=other"])
def test_filters_that_mean_nothing(query: str, api: Client) -> None:
    assert error_of(api.get(f"/api/nodes?{query}")) == (400, "validation_error")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "x" * 101),
        ("base_url", "ftp://host"),
        ("base_url", "http://me:secret@host"),
        ("health_check_interval_secs", 0),
        ("health_check_interval_secs", 301),
        ("inference_timeout_secs", 9),
        ("inference_timeout_secs", 3601),
        ("node_type", "other"),
        ("weight", 0),
        ("tags", "rack"),
        ("max_concurrency", "many"),
    ],
)
def test_values_that_cannot_be(field: str, value: Any, api: Client) -> None:
    answer = post(api, "/api/nodes", {"name": "gpu-1", "base_url": "http://127.0.0.1:9", field: value})
    assert error_of(answer) == (400, "validation_error")
    assert field in answer.json()["error"]["fields"]


def test_refusals_of_a_registration(api: Client, start_fake: StartFake) -> None:
    fake = start_fake(["a"])
    make_node(fake, "taken")

    def register(name: str, url: str) -> tuple[int, str]:
        return error_of(post(api, "/api/nodes", {"name": name, "base_url": url}))

    assert register("taken", start_fake().url) == (400, "validation_error")
    assert register("new", fake.url + "/") == (409, "conflict")
    assert register("new", "http://127.0.0.1:9") == (502, "node_unreachable")
    assert register("new", "http://169.254.169.254") == (400, "address_refused")
    assert register("new", start_fake(kind="web_page").url) == (502, "model_list_unavailable")
    assert register("new", start_fake([]).url) == (400, "no_executable_models")
    assert Node.objects.count() == 1


def test_the_address_cannot_be_changed(api: Client) -> None:
    node = make_node("http://host-1:8000", models=("a",))
    path = f"/api/nodes/{node.pk}"
    for method in (api.put, api.patch):
        answer = method(path, {"base_url": "http://other"}, content_type="application/json")
        assert error_of(answer) == (400, "base_url_immutable")
        same = method(path, {"name": "new", "base_url": "http://HOST-1:8000/v1/"}, content_type="application/json")
        assert same.status_code == 200
    assert reloaded(node).base_url == "http://host-1:8000"


def test_a_name_that_is_taken(api: Client) -> None:
    make_node("http://n1", "n1")
    node = make_node("http://n2", "n2")
    answer = api.patch(f"/api/nodes/{node.pk}", {"name": "n1"}, content_type="application/json")
    assert error_of(answer) == (400, "validation_error")
    assert reloaded(node).name == "n2"


def test_a_chosen_type(api: Client) -> None:
    node = make_node("http://n1")
    path = f"/api/nodes/{node.pk}"
    chosen = api.patch(path, {"endpoint_type": "vllm"}, content_type="application/json").json()
    assert (chosen["node_type"], chosen["endpoint_type_source"], chosen["concurrency_limit"]) == ("vllm", "manual", 256)
    freed = api.patch(path, {"node_type": None}, content_type="application/json").json()
    assert freed["endpoint_type_source"] == "auto"


def test_test(api: Client, start_fake: StartFake) -> None:
    fake = start_fake(["a"])
    node = make_node(fake, version="1.2", status=NodeStatus.OFFLINE)
    good = post(api, f"/api/nodes/{node.pk}/test").json()
    assert (good["success"], good["error"], good["models_found"]) == (True, None, ["a"])
    assert good["endpoint_info"] == {"version": "1.2", "model_count": 1}
    assert good["latency_ms"] > 0
    assert reloaded(node).status == NodeStatus.ONLINE
    fake.run(fake.kill())
    bad = post(api, f"/api/nodes/{node.pk}/test")
    assert bad.status_code == 200
    assert (bad.json()["success"], bad.json()["error"]) == (False, "refuses connections")


def test_sync(api: Client, start_fake: StartFake) -> None:
    fake = start_fake(["b", "c"], kind="vllm")
    node = make_node(fake, models=("a", "b"))
    report = post(api, f"/api/nodes/{node.pk}/sync").json()
    assert report == {"synced_models": ["b", "c"], "added": 1, "removed": 1, "updated": 1}
    fake.behaviour = Behaviour(mode="garbage_models")
    assert error_of(post(api, f"/api/nodes/{node.pk}/sync")) == (503, "endpoint_offline")
    assert models_of(node) == {"b", "c"}


def test_drain_and_resume(api: Client) -> None:
    node = make_node("http://n1")
    assert post(api, f"/api/nodes/{node.pk}/drain").json()["draining"] is True
    assert post(api, f"/api/nodes/{node.pk}/drain").json()["draining"] is True
    assert post(api, f"/api/nodes/{node.pk}/resume").json()["draining"] is False
    done = AuditEvent.objects.filter(actor="ken").order_by("id")
    assert list(done.values_list("action", flat=True)) == ["node.drain", "node.resume"]


def test_reregister(api: Client, start_fake: StartFake) -> None:
    fake = start_fake(["a"])
    node = make_node(fake)
    services.exclude_model_from_node(node_id=node.pk, model_id="a", reason="500")
    assert post(api, f"/api/nodes/{node.pk}/re-register").json()["excluded_models"] == []
    fake.run(fake.kill())
    assert error_of(post(api, f"/api/nodes/{node.pk}/re-register")) == (502, "node_unreachable")


def test_excluded_models_and_reinclude(api: Client) -> None:
    node = make_node("http://n1", models=("a", "b"))
    for model in ("a", "b"):
        services.exclude_model_from_node(node_id=node.pk, model_id=model, reason="answered 500")
    path = f"/api/nodes/{node.pk}"
    shown = api.get(path).json()
    assert shown["executable_models"] == ["a", "b"]
    first = shown["excluded_models"][0]
    assert (first["model"], first["reason"]) == ("a", "answered 500")
    assert first["since"].endswith("Z")
    assert post(api, f"{path}/reinclude", {"model": "a"}).json() == {"reincluded": 1}
    assert excluded_of(node) == {"b"}
    assert error_of(post(api, f"{path}/reinclude", {"model": "other"})) == (404, "not_found")
    assert post(api, f"{path}/reinclude").json() == {"reincluded": 1}


ACTIONS = ("test", "sync", "re-register", "drain", "resume", "reinclude")


def test_unknown_node(api: Client) -> None:
    assert error_of(api.get("/api/nodes/99/models")) == (404, "not_found")
    assert error_of(api.put("/api/nodes/99", {}, content_type="application/json")) == (404, "not_found")
    assert error_of(api.delete("/api/nodes/99")) == (404, "not_found")
    for action in ACTIONS:
        for pk in (99, 10**30):  # more than a database holds
            assert error_of(post(api, f"/api/nodes/{pk}/{action}")) == (404, "not_found")


def all_writes(client: Client, pk: int) -> list[Any]:
    path = f"/api/nodes/{pk}"
    data = {"name": "n", "base_url": "http://127.0.0.1:9"}
    answers = [post(client, "/api/nodes", data), client.delete(path)]
    answers += [method(path, {"name": "n"}, content_type="application/json") for method in (client.put, client.patch)]
    return answers + [post(client, f"{path}/{action}") for action in ACTIONS]


def test_a_viewer_only_reads(yui: User, signed_in: Callable[[User], Client]) -> None:
    node = make_node("http://n1")
    browser = signed_in(yui)
    assert browser.get("/api/nodes").status_code == browser.get(f"/api/nodes/{node.pk}/models").status_code == 200
    assert {answer.status_code for answer in all_writes(browser, node.pk)} == {403}


def test_keys_need_the_permission(hana: User, mint_key: Any, with_key: Callable[[str], Client]) -> None:
    node = make_node("http://n1")
    reader = with_key(mint_key(hana, Permission.ENDPOINTS_READ)[1])
    assert reader.get(f"/api/nodes/{node.pk}").status_code == 200
    assert {answer.status_code for answer in all_writes(reader, node.pk)} == {403}
    stranger = with_key(mint_key(hana, Permission.INFERENCE)[1])
    assert stranger.get("/api/nodes").status_code == 403
    manager = with_key(mint_key(hana, Permission.ENDPOINTS_MANAGE)[1])
    assert post(manager, f"/api/nodes/{node.pk}/drain").status_code == 200
    assert AuditEvent.objects.latest("id").actor_kind == "key"


def test_no_one_is_let_in_without_a_key(client: Client) -> None:
    assert client.get("/api/nodes").status_code == 401
