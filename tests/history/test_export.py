"""The download: what the filters leave, in a stream, and harmless in a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from asgiref.sync import sync_to_async
from django.db import connection, connections
from django.test import AsyncClient
from django.test.utils import CaptureQueriesContext

from access.models import User
from history import queries
from history.export import csv_parts, json_parts
from history.filters import Filters
from tests.history.conftest import make_entry, store

pytestmark = pytest.mark.django_db(transaction=True)
API = "/api/dashboard/request-responses/export"
PAGE = "/history/export"


@pytest_asyncio.fixture(autouse=True)
async def no_connection_stays_open() -> AsyncIterator[None]:
    """Django's test client does not close what a request's thread opened."""
    yield
    await sync_to_async(connections.close_all)()


async def download(person: User, url: str, accept: str = "*/*") -> tuple[Any, str]:
    client: Any = AsyncClient(headers={"accept": accept})
    await client.aforce_login(person)
    answer = await client.get(url)
    assert answer.status_code == 200
    assert answer.streaming
    return answer, b"".join([part async for part in answer]).decode()


@pytest.mark.parametrize("url", [API, PAGE])
async def test_csv_honours_the_filters(ken: User, url: str) -> None:
    await _stored(make_entry(model="qwen"), make_entry(model="llama", request_id="a"), make_entry(request_id="b"))
    answer, text = await download(ken, f"{url}?format=csv&model=llama", accept="text/csv")
    assert answer["Content-Type"].startswith("text/csv")
    assert answer["Content-Disposition"].startswith('attachment; filename="llmlb-history-')
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["request_id"], row["model"], row["total_tokens"]) for row in rows] == [
        ("b", "llama", "10"),
        ("a", "llama", "10"),
    ]
    assert "request_body" not in rows[0]


@pytest.mark.parametrize("url", [API, PAGE])
async def test_json_is_one_array(ken: User, url: str) -> None:
    assert json.loads((await download(ken, f"{url}?format=json"))[1]) == []
    await _stored(make_entry(request_id="a", error_message='明日の"天気"'), make_entry(request_id="b"))
    answer, text = await download(ken, f"{url}?format=json")
    assert answer["Content-Type"] == "application/json"
    rows = json.loads(text)
    assert [row["request_id"] for row in rows] == ["b", "a"]
    assert rows[1]["error_message"] == '明日の"天気"'
    assert rows[0]["first_byte_ms"] is None


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_is_a_formula(start: str) -> None:
    store(make_entry(model=f"{start}cmd|' /C calc'!A0", tokens_per_second=12.5))
    (row,) = csv.DictReader(io.StringIO("".join(csv_parts(queries.chunks(Filters()))), newline=""))
    assert row["model"] == f"'{start}cmd|' /C calc'!A0"
    assert row["tokens_per_second"] == "12.5"


def test_rows_are_read_some_at_a_time() -> None:
    store(*(make_entry(request_id=str(number)) for number in range(25)))
    with CaptureQueriesContext(connection) as seen:
        parts = json_parts(queries.chunks(Filters(), size=10))
        first = next(parts)
        assert len(seen) == 2
        rest = "".join(parts)
    assert len(seen) == 5
    assert [row["request_id"] for row in json.loads(first + rest)] == [str(number) for number in range(24, -1, -1)]


async def test_an_unknown_format_is_said(ken: User) -> None:
    client = AsyncClient()
    await client.aforce_login(ken)
    answer = await client.get(f"{API}?format=xml")
    assert (answer.status_code, list(answer.json()["error"]["fields"])) == (400, ["format"])


async def _stored(*entries: Any) -> None:
    await sync_to_async(store)(*entries)
