"""The history in Django's admin: looked at, never changed, never counted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from access.models import User
from tests.history.conftest import make_entry, store

pytestmark = pytest.mark.django_db
SignIn = Callable[[User], Client]
RECORDS, TOTALS = "/admin/history/requestrecord/", "/admin/history/tokentotal/"


@pytest.mark.parametrize("url", [RECORDS, TOTALS])
def test_lists_are_there_and_cannot_be_added_to(signed_in: SignIn, hana: User, url: str) -> None:
    store(make_entry(model="qwen", served_model="qwen"))
    client = signed_in(hana)
    page = client.get(url).content.decode()
    assert "qwen" in page
    assert f'href="{url}add/"' not in page
    assert client.get(f"{url}add/").status_code == 403


def test_one_request_with_its_attempts_cannot_be_changed(signed_in: SignIn, ken: User) -> None:
    (record,) = store(make_entry(duration_ms=2345.678901234))
    client = signed_in(ken)
    page = client.get(f"{RECORDS}{record.pk}/change/").content.decode()
    assert "least_busy" in page
    assert 'name="_save"' not in page
    assert "2.3 s" in page
    assert "2345.67" not in page
    assert client.post(f"{RECORDS}{record.pk}/delete/").status_code == 403


def test_the_list_is_not_counted(signed_in: SignIn, hana: User) -> None:
    store(*(make_entry() for _ in range(60)))
    client = signed_in(hana)
    with CaptureQueriesContext(connection) as seen:
        page = client.get(RECORDS).content.decode()
    assert "60 requests" in page
    assert not [query for query in seen.captured_queries if "COUNT(" in query["sql"].upper()]


def test_filters_and_search(signed_in: SignIn, hana: User) -> None:
    store(make_entry(request_id="abc", model="qwen"), make_entry(status=503, outcome="no_route", model="phi"))
    client = signed_in(hana)
    assert "phi" not in client.get(f"{RECORDS}?outcome__exact=success").content.decode()
    assert "phi" not in client.get(f"{RECORDS}?q=abc").content.decode()


def test_viewers_have_no_part_in_it(signed_in: SignIn, yui: User) -> None:
    assert signed_in(yui).get(RECORDS).status_code == 403
