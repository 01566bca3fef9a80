"""The history in the browser: the list, its filters and pager, one request."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from access.models import AuditEvent, User
from nodes.models import Node
from tests.history.conftest import make_entry, store, with_bodies

pytestmark = pytest.mark.django_db
SignIn = Callable[[User], Client]


def text_of(answer: Any) -> str:
    assert answer.status_code == 200
    return str(answer.content.decode())


def test_an_empty_history_says_what_will_be_there(signed_in: SignIn, ken: User) -> None:
    page = text_of(signed_in(ken).get("/history/"))
    assert "No requests yet" in page
    assert "- / -" in page
    assert page.count("disabled>") == 2


def test_a_row_tells_the_essentials(signed_in: SignIn, ken: User) -> None:
    (record,) = store(
        make_entry(model="qwen", node_name="gpu-7", api_key_name="app", duration_ms=1500, first_byte_ms=80)
    )
    page = text_of(signed_in(ken).get("/history/"))
    for part in ("qwen", "gpu-7", "app", "200", "1.5 s", "80 ms", f'href="/history/{record.pk}?'):
        assert part in page


def test_paging_by_links(signed_in: SignIn, ken: User) -> None:
    store(*(make_entry(model=f"m{number:02}") for number in range(30)))
    client = signed_in(ken)
    first = text_of(client.get("/history/?per_page=25&model=m"))
    assert "1 / 2" in first
    (following,) = re.findall(r'rel="next" href="([^"]+)"', first)
    assert 'rel="prev"' not in first
    second = text_of(client.get(following.replace("&amp;", "&")))
    assert "2 / 2" in second
    assert "m04" in second
    assert "m05" not in second
    assert 'rel="next"' not in second


def test_the_form_starts_anew_at_the_first_page(signed_in: SignIn, ken: User) -> None:
    store(*(make_entry() for _ in range(30)))
    page = text_of(signed_in(ken).get("/history/?per_page=10&page=3"))
    (form,) = re.findall(r'<form class="filters".*?</form>', page, re.S)
    assert 'name="page"' not in form
    assert 'value="10" selected' in form


def test_only_the_first_page_follows_what_happens(signed_in: SignIn, ken: User) -> None:
    store(*(make_entry() for _ in range(30)))
    client = signed_in(ken)
    assert "llmlb:history from:body" in text_of(client.get("/history/?per_page=10"))
    assert "llmlb:history" not in text_of(client.get("/history/?per_page=10&page=2"))


def test_htmx_gets_the_list_alone(signed_in: SignIn, ken: User) -> None:
    answer = signed_in(ken).get("/history/", headers={"hx-request": "true"})
    assert text_of(answer).lstrip().startswith('<section class="card" id="requests"')
    assert "HX-Request" in answer["Vary"]
    restored = signed_in(ken).get("/history/", headers={"hx-request": "true", "hx-history-restore-request": "true"})
    assert "<html" in text_of(restored)


def test_a_filter_leaves_what_fits_and_the_download_too(signed_in: SignIn, ken: User) -> None:
    store(make_entry(model="qwen"), make_entry(model="llama", error_message="明日の天気"))
    page = text_of(signed_in(ken).get("/history/", {"q": "天気"}))
    assert "llama" in page
    assert "qwen" not in page
    assert "/history/export?q=%E5%A4%A9%E6%B0%97&amp;format=csv" in page


def test_a_filter_that_cannot_be_used_is_shown_and_not_used(signed_in: SignIn, ken: User) -> None:
    store(make_entry(model="qwen"))
    page = text_of(signed_in(ken).get("/history/?status=9999&node_id=77"))
    assert "A status like 503" in page
    assert "qwen" in page


def test_times_are_as_the_browser_sends_them(signed_in: SignIn, ken: User) -> None:
    store(make_entry(model="qwen"))
    client = signed_in(ken)
    assert "qwen" in text_of(client.get("/history/?start_time=2020-01-01T00:00"))
    assert "No request fits" in text_of(client.get("/history/?end_time=2020-01-01T00:00"))


def test_a_request_that_was_never_answered_has_words_for_it(signed_in: SignIn, ken: User) -> None:
    (record,) = store(make_entry(status=0, outcome="broken"))
    client = signed_in(ken)
    for path in ("/history/", f"/history/{record.pk}"):
        page = text_of(client.get(path))
        assert '<span class="badge is-offline">the stream broke</span>' in page
        assert "<dd>0</dd>" not in page


def test_what_a_client_sent_cannot_become_markup(signed_in: SignIn, ken: User) -> None:
    (record,) = store(make_entry(model="<script>alert(1)</script>", error_message="<b>", request_id="<i>"))
    client = signed_in(ken)
    for path in ("/history/?q=%22%3E%3Cscript%3E", f"/history/{record.pk}?q=%22%3E%3Cscript%3E"):
        page = text_of(client.get(path))
        assert "<script>alert" not in page
        assert '"><script>' not in page


def test_one_request_with_everything_about_it(signed_in: SignIn, ken: User) -> None:
    node = Node.objects.create(name="gpu-1", base_url="http://127.0.0.1:1")
    (record,) = store(with_bodies(node_id=node.pk, request_id="abc", queue_ms=2300, poison=True, client_ip="10.1.2.3"))
    page = text_of(signed_in(ken).get(f"/history/{record.pk}?model=llama&page=3"))
    for part in ("abc", "2.3 s", "10.1.2.3", "least_busy", "poison", f'href="/nodes/{node.pk}', "•••• (29 characters)"):
        assert part in page
    assert 'href="/history/?model=llama&amp;page=3"' in page
    assert "Tokyo" not in page
    assert "Reveal</button>" not in page


def test_an_administrator_reveals_by_a_button(signed_in: SignIn, hana: User) -> None:
    (record,) = store(with_bodies())
    client = signed_in(hana)
    page = text_of(client.get(f"/history/{record.pk}"))
    assert "Reveal</button>" in page
    assert "Tokyo" not in page
    answer = client.post(f"/history/{record.pk}")
    assert "Tokyo" in text_of(answer)
    assert "no-store" in answer["Cache-Control"]
    assert AuditEvent.objects.get(action="history.reveal").actor == "hana"


def test_nobody_else_reveals(signed_in: SignIn, ken: User, yui: User) -> None:
    (record,) = store(with_bodies())
    for person in (ken, yui):
        assert signed_in(person).post(f"/history/{record.pk}").status_code == 403
    assert not AuditEvent.objects.filter(action="history.reveal").exists()


def test_bodies_under_another_secret_key(signed_in: SignIn, hana: User) -> None:
    (record,) = store(with_bodies())
    record.payload.bodies = b"sealed with another key, twelve bytes and more"
    record.payload.save()
    client = signed_in(hana)
    assert "cannot be read" in text_of(client.get(f"/history/{record.pk}"))
    assert "cannot be read" in text_of(client.post(f"/history/{record.pk}"))


@pytest.mark.parametrize("path", ["/history/", "/history/1", "/history/export"])
def test_viewers_do_not_read_what_others_asked(signed_in: SignIn, yui: User, path: str) -> None:
    assert signed_in(yui).get(path).status_code == 403
    assert Client().get(path).status_code == 302


def test_a_request_that_is_not_there(signed_in: SignIn, ken: User) -> None:
    assert signed_in(ken).get("/history/999").status_code == 404
