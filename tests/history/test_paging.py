"""Pages: their sizes, their ends, "X / Y", and totals that cost what they may cost."""

from __future__ import annotations

import pytest

from history import queries
from history.filters import Filters
from history.models import RequestRecord
from history.queries import find_page, page_size
from tests.history.conftest import make_entry, store

pytestmark = pytest.mark.django_db


def numbers(page: queries.Page) -> list[int]:
    return [int(record.request_id) for record in page.records]


@pytest.fixture
def many(db: None) -> None:
    store(*(make_entry(request_id=str(n), model="even" if n % 2 == 0 else "odd") for n in range(1, 61)))


@pytest.mark.parametrize(
    ("asked", "size"),
    [("10", 10), ("25", 25), (50, 50), ("100", 100), (None, 50), ("", 50), ("7", 50), ("x", 50), ("-10", 50)],
)
def test_a_page_has_one_of_four_sizes(asked: str | int | None, size: int) -> None:
    assert page_size(asked) == size


@pytest.mark.usefixtures("many")
def test_pages_follow_each_other_newest_first() -> None:
    first, third = find_page(Filters(), per_page=25), find_page(Filters(), number=3, per_page=25)
    assert numbers(first) == list(range(60, 35, -1))
    assert numbers(third) == list(range(10, 0, -1))
    assert (first.label, third.label) == ("1 / 3", "3 / 3")
    assert (first.has_previous, first.has_next) == (False, True)
    assert (third.has_previous, third.has_next) == (True, False)


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("number", [4, 10**9])
def test_beyond_the_end_is_the_last_page(number: int) -> None:
    assert find_page(Filters(), number=number, per_page=25).number == 3


def test_nothing_is_no_page() -> None:
    for filters in (Filters(), Filters(model="none")):
        page = find_page(filters)
        assert (page.label, page.total, page.total_pages, page.number) == ("- / -", 0, 0, 1)
        assert not page.has_previous
        assert not page.has_next


@pytest.mark.usefixtures("many")
def test_pages_of_a_filter_beyond_what_is_looked_up_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "_MATCHES_AT_ONCE", 12)
    page = find_page(Filters(model_exact="odd"), number=3, per_page=10)
    assert numbers(page) == [19, 17, 15, 13, 11, 9, 7, 5, 3, 1]
    assert (page.total, page.is_exact, page.label) == (30, True, "3 / 3")
    assert numbers(find_page(Filters(model_exact="odd"), number=2, per_page=10))[0] == 39


@pytest.mark.usefixtures("many")
def test_a_very_large_table_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "_MATCHES_OF_A_LARGE_TABLE", 12)
    monkeypatch.setattr(queries, "_MATCHES_AT_MOST", 24)
    monkeypatch.setattr(queries, "_COUNTED_TO_THE_END", 20)
    page = find_page(Filters(model_exact="odd"), per_page=10)
    assert (page.total, page.is_exact, page.label) == (12, False, "1 / 2+")
    further = find_page(Filters(model_exact="odd"), number=2, per_page=10)
    assert (further.total, further.label, numbers(further)[0]) == (24, "2 / 3+", 39)
    assert find_page(Filters(model_exact="odd"), number=10**9, per_page=10).label == "3 / 3+"
    everything = find_page(Filters(), number=6, per_page=10)
    assert (everything.total, everything.is_exact) == (60, True)
    assert numbers(everything) == list(range(10, 0, -1))


@pytest.mark.usefixtures("many")
def test_what_retention_took_is_not_counted() -> None:
    RequestRecord.objects.filter(request_id__in=[str(n) for n in range(1, 31)]).delete()
    page = find_page(Filters(), number=3, per_page=10)
    assert (page.total, numbers(page)[-1]) == (30, 31)
