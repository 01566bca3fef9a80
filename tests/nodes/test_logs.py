"""A node's own log, through the gateway: 404 where there is none, 502 where it is away, 413 where it is too much."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from access.models import User
from access.permissions import Permission
from nodes.fake_node import Behaviour
from tests.conftest import MintKey
from tests.nodes.conftest import StartFake, make_node

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def api(ken: User, signed_in: Callable[[User], Client]) -> Client:
    """An operator's browser."""
    return signed_in(ken)


@pytest.mark.parametrize(
    ("query", "lines"), [("", 200), ("?tail=3", 3), ("?limit=3", 3), ("?tail=5000", 1000), ("?tail=-7", 1)]
)
def test_the_newest_lines_oldest_first(query: str, lines: int, api: Client, start_fake: StartFake) -> None:
    fake = start_fake(["a"], kind="xllm")
    fake.own.logs = [f"line {number}" for number in range(2000)]
    node = make_node(fake, node_type="xllm")
    answer = api.get(f"/api/nodes/{node.pk}/logs{query}")
    assert answer.status_code == 200
    messages = [entry["message"] for entry in answer.json()["entries"]]
    assert messages == [f"line {number}" for number in range(2000 - lines, 2000)]


def status_and_code(api: Client, pk: int) -> tuple[int, str]:
    answer = api.get(f"/api/nodes/{pk}/logs")
    return answer.status_code, answer.json()["error"]["code"]


def test_nodes_without_logs_are_404(api: Client, start_fake: StartFake) -> None:
    assert status_and_code(api, 99) == (404, "not_found")
    assert status_and_code(api, make_node("http://127.0.0.1:9", node_type="vllm").pk) == (404, "no_logs")
    other = make_node(start_fake(["a"], kind="vllm"), "other", node_type="xllm")  # which it only says it is
    assert status_and_code(api, other.pk) == (404, "no_logs")


def test_nodes_that_do_not_answer_are_502(api: Client, start_fake: StartFake) -> None:
    assert status_and_code(api, make_node("http://127.0.0.1:9", node_type="xllm").pk) == (502, "node_unreachable")
    garbage = start_fake(["a"], kind="xllm", behaviour=Behaviour(mode="hang"))
    garbage.run(garbage.kill())
    assert status_and_code(api, make_node(garbage, "dead", node_type="xllm").pk) == (502, "node_unreachable")


def test_more_than_ten_megabytes_are_413(api: Client, start_fake: StartFake) -> None:
    fake = start_fake(["a"], kind="xllm")
    fake.own.log_padding = 300_000
    assert status_and_code(api, make_node(fake, node_type="xllm").pk) == (413, "answer_too_large")


def test_text_that_is_none_does_no_harm(api: Client, start_fake: StartFake) -> None:
    fake = start_fake(["a"], kind="xllm")
    fake.own.logs = ["half a pair: \ud800", "two\nlines"]
    answer = api.get(f"/api/nodes/{make_node(fake, node_type='xllm').pk}/logs")
    assert [entry["message"] for entry in answer.json()["entries"]] == ["half a pair: ?", "two\nlines"]


def test_only_who_may_read_logs_may(
    start_fake: StartFake, yui: User, ken: User, mint_key: MintKey, signed_in: Any, with_key: Any
) -> None:
    path = f"/api/nodes/{make_node(start_fake(['a'], kind='xllm'), node_type='xllm').pk}/logs"
    assert signed_in(yui).get(path).status_code == 403
    assert with_key(mint_key(ken, Permission.ENDPOINTS_READ)[1]).get(path).status_code == 403
    assert with_key(mint_key(ken, Permission.LOGS_READ)[1]).get(path).status_code == 200
    assert signed_in(ken).get(f"{path}?tail=many").status_code == 400
