"""`/api/dashboard/request-responses`: the list, one request, and what only an administrator may see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from access.models import AuditEvent, User
from access.permissions import Permission
from history.models import RequestRecord
from tests.conftest import MintKey
from tests.history.conftest import ANSWER, PROMPT, make_entry, store, with_bodies

pytestmark = pytest.mark.django_db
URL = "/api/dashboard/request-responses"
SignIn = Callable[[User], Client]


def test_the_list_has_pages_newest_first(signed_in: SignIn, ken: User) -> None:
    store(*(make_entry(request_id=str(number)) for number in range(12)))
    answer = signed_in(ken).get(URL, {"per_page": "10", "page": "2"}).json()
    assert {name: value for name, value in answer.items() if name != "records"} == {
        "total": 12,
        "total_count": 12,
        "total_is_exact": True,
        "page": 2,
        "per_page": 10,
        "total_pages": 2,
    }
    assert [record["request_id"] for record in answer["records"]] == ["1", "0"]


def test_limit_and_offset_instead_of_pages(signed_in: SignIn, ken: User) -> None:
    store(*(make_entry(request_id=str(number)) for number in range(12)))
    client = signed_in(ken)

    def listed(query: str) -> tuple[list[str], int, int]:
        answer = client.get(f"{URL}?{query}").json()
        return [record["request_id"] for record in answer["records"]], answer["page"], answer["per_page"]

    assert listed("limit=3&offset=2") == (["9", "8", "7"], 1, 3)
    assert listed("limit=5&model=&offset=10") == (["1", "0"], 3, 5)
    assert listed("limit=2") == (["11", "10"], 1, 2)
    assert listed("offset=12")[0] == listed("offset=999999999")[0] == []
    for query in ("limit=0", "limit=101", "offset=-1", "offset=x", "limit=99999999999999999999"):
        assert client.get(f"{URL}?{query}").status_code == 400


@pytest.mark.parametrize("query", ["per_page=7", "per_page=x", "page=x", "page=-1", ""])
def test_a_page_or_size_that_is_none_means_the_first_of_fifty(signed_in: SignIn, ken: User, query: str) -> None:
    answer = signed_in(ken).get(f"{URL}?{query}").json()
    assert (answer["page"], answer["per_page"], answer["records"]) == (1, 50, [])


def test_a_record_has_our_names_and_upstreams(signed_in: SignIn, ken: User) -> None:
    store(make_entry(node_id=3, node_name="gpu-3", api_key_name="app"))
    (record,) = signed_in(ken).get(URL).json()["records"]
    for ours, theirs in (
        ("node_id", "endpoint_id"),
        ("node_name", "endpoint_name"),
        ("prompt_tokens", "input_tokens"),
        ("completion_tokens", "output_tokens"),
        ("kind", "request_type"),
        ("started_at", "timestamp"),
    ):
        assert record[ours] == record[theirs] is not None
    assert "request_body" not in record


def test_filters_are_asked_by_both_names(signed_in: SignIn, ken: User) -> None:
    store(make_entry(), make_entry(node_id=2, status=503, outcome="no_route", stream=True))
    client = signed_in(ken)
    for query in ("node_id=2", "endpoint_id=2", "status=5xx", "status=error", "stream=true", "outcome=no_route"):
        assert client.get(f"{URL}?{query}").json()["total"] == 1, query
    assert (
        client.get(f"{URL}?start_time=2020-01-01T00:00:00Z&end_time=2099-01-01T00:00:00%2B09:00").json()["total"] == 2
    )


@pytest.mark.parametrize("query", ["status=9", "node_id=x", "start_time=yesterday", "outcome=odd", "stream=perhaps"])
def test_a_filter_that_cannot_be_used_is_an_error(signed_in: SignIn, ken: User, query: str) -> None:
    answer = signed_in(ken).get(f"{URL}?{query}")
    assert answer.status_code == 400
    assert list(answer.json()["error"]["fields"]) == [query.split("=")[0]]


def detail(client: Client, record: RequestRecord, query: str = "") -> Any:
    return client.get(f"{URL}/{record.pk}{query}")


def test_one_request_comes_with_attempts_and_masked_bodies(signed_in: SignIn, ken: User) -> None:
    (record,) = store(with_bodies(request_truncated=True))
    answer = detail(signed_in(ken), record).json()
    assert [one["node_name"] for one in answer["attempts"]] == ["gpu-1"]
    assert answer["request_body"]["messages"] == [{"role": "user", "content": "•••• (29 characters)"}]
    assert answer["response_body"]["usage"] == ANSWER["usage"]
    assert (answer["masked"], answer["readable"]) == (True, True)
    assert (answer["request_truncated"], answer["response_truncated"]) == (True, False)
    assert "Tokyo" not in str(answer)
    assert not AuditEvent.objects.filter(action="history.reveal").exists()


def test_a_request_without_bodies_has_none(signed_in: SignIn, ken: User) -> None:
    (record,) = store(make_entry())
    answer = detail(signed_in(ken), record).json()
    assert (answer["request_body"], answer["response_body"]) == (None, None)


def test_an_unknown_request_is_404(signed_in: SignIn, ken: User) -> None:
    answer = signed_in(ken).get(f"{URL}/999")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_an_administrator_reveals_and_the_audit_says_so(signed_in: SignIn, hana: User) -> None:
    (record,) = store(with_bodies(request_id="abc"))
    answer = detail(signed_in(hana), record, "?reveal=1").json()
    assert (answer["request_body"], answer["response_body"], answer["masked"]) == (PROMPT, ANSWER, False)
    event = AuditEvent.objects.get(action="history.reveal")
    assert (event.actor, event.target, event.ip) == ("hana", f"request {record.pk}", "127.0.0.1")
    assert event.details == {"request_id": "abc"}


def test_nobody_else_reveals(signed_in: SignIn, with_key: Any, mint_key: MintKey, hana: User, ken: User) -> None:
    (record,) = store(with_bodies())
    for client in (signed_in(ken), with_key(mint_key(hana)[1])):
        answer = detail(client, record, "?reveal=1")
        assert answer.status_code == 403
        assert "Tokyo" not in answer.content.decode()
    assert not AuditEvent.objects.filter(action="history.reveal").exists()


def test_bodies_under_another_secret_key_are_said_to_be(signed_in: SignIn, hana: User) -> None:
    (record,) = store(with_bodies())
    record.payload.bodies = b"sealed with another key, twelve bytes and more"
    record.payload.save()
    answer = detail(signed_in(hana), record).json()
    assert (answer["request_body"], answer["readable"]) == (None, False)
    refused = detail(signed_in(hana), record, "?reveal=1")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "payload_unreadable")


@pytest.mark.parametrize("path", ["", "/1", "/export"])
def test_who_may_read(signed_in: SignIn, with_key: Any, mint_key: MintKey, hana: User, yui: User, path: str) -> None:
    assert Client().get(URL + path).status_code == 401
    assert signed_in(yui).get(URL + path).status_code == 403
    assert with_key(mint_key(hana, Permission.INFERENCE)[1]).get(URL + path).status_code == 403
    assert signed_in(hana).post(URL + path).status_code == 405


def test_a_key_that_may_read_logs_reads_the_list(with_key: Any, mint_key: MintKey, hana: User) -> None:
    assert with_key(mint_key(hana, Permission.LOGS_READ)[1]).get(URL).status_code == 200
