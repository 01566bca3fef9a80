"""What the gateway reports is in the database a moment later, whole."""

from __future__ import annotations

import itertools
import threading
import time
import zlib
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from django.utils import timezone

from access.models import User
from history import recorder as recorder_module
from history.entries import AttemptEntry
from history.models import RequestAttempt, RequestPayload, RequestRecord, TokenTotal
from history.payloads import seal, unpack
from llmlb_site.lib import events
from llmlb_site.lib.crypto import encrypt_bytes
from nodes.models import Node
from tests.conftest import MintKey
from tests.history.conftest import StartRecorder, eventually, make_entry, store, with_bodies

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_request_is_a_row_within_a_second(start_recorder: StartRecorder) -> None:
    recorder = start_recorder()
    recorder.put(make_entry(request_id="abc", client_ip="10.0.0.9", stream=True, queue_ms=4.0, first_byte_ms=30.0))
    eventually(RequestRecord.objects.exists, within=1.0)
    row = RequestRecord.objects.get()
    assert (row.request_id, row.model, row.node_name, row.client_ip) == ("abc", "llama", "gpu-1", "10.0.0.9")
    assert (row.status, row.stream, row.queue_ms, row.first_byte_ms) == (200, True, 4.0, 30.0)
    assert (row.prompt_tokens, row.completion_tokens, row.total_tokens) == (7, 3, 10)
    assert abs((timezone.now() - row.started_at).total_seconds()) < 5


def test_every_attempt_is_kept_in_order(start_recorder: StartRecorder) -> None:
    first = AttemptEntry(
        node_id=1, node_name="gpu-1", selection_reason="least_busy", error="cannot connect", excluded=True
    )
    second = AttemptEntry(node_id=2, node_name="gpu-2", selection_reason="retry", status=200, duration_ms=9.0)
    recorder = start_recorder()
    recorder.put(make_entry(attempts=[first, second], node_id=2, node_name="gpu-2"))
    recorder.put(make_entry())
    assert recorder.stop()
    row = RequestRecord.objects.order_by("id")[0]
    assert row.attempt_count == 2
    kept = [(one.number, one.node_name, one.error, one.excluded, one.status) for one in row.attempts.all()]
    assert kept == [(1, "gpu-1", "cannot connect", True, None), (2, "gpu-2", "", False, 200)]


def test_a_refused_request_is_a_row_without_node(start_recorder: StartRecorder) -> None:
    recorder = start_recorder()
    recorder.put(
        make_entry(
            outcome="no_route", status=503, error_code="no_nodes_available", node_id=None, node_name="", served_model=""
        )
    )
    recorder.stop()
    row = RequestRecord.objects.get()
    assert (row.node_id, row.status, row.error_code, row.attempt_count) == (None, 503, "no_nodes_available", 0)


def test_many_requests_come_in_order_and_none_twice(start_recorder: StartRecorder) -> None:
    recorder = start_recorder()
    for number in range(2500):
        recorder.put(make_entry(request_id=str(number)))
    assert recorder.stop(30)
    ids = list(RequestRecord.objects.order_by("id").values_list("request_id", flat=True))
    assert ids == [str(number) for number in range(2500)]
    assert RequestAttempt.objects.count() == 2500
    health = recorder.health()
    assert (health.written, health.backlog, health.rows_dropped, health.spooled) == (2500, 0, 0, 0)


def test_each_value_comes_back_as_it_was_given() -> None:
    moments = [
        datetime(2026, 11, 22, 7, 30, 1, 250, tzinfo=UTC),
        datetime(2026, 11, 22, 7, 30, 2, tzinfo=UTC),
        datetime(2026, 11, 22, 16, 30, 3, 999_999, tzinfo=ZoneInfo("Asia/Tokyo")),
    ]
    entries = [
        with_bodies(
            request_id=str(number),
            started_at=moments[number % 3],
            stream=number % 2 == 0,
            poison=number % 5 == 0,
            first_byte_ms=None if number % 4 else 1.5,
            request_body=str(number).encode(),
            response_truncated=number % 7 == 0,
        )
        for number in range(47)
    ]
    given = [(e.request_id, e.started_at, e.stream, e.poison, e.first_byte_ms, e.response_truncated) for e in entries]
    rows = store(*entries)
    assert [
        (row.request_id, row.started_at, row.stream, row.poison, row.first_byte_ms, row.payload.response_truncated)
        for row in rows
    ] == given
    bodies = [unpack(bytes(row.payload.bodies), encrypted=True) for row in rows]
    assert [body.request for body in bodies] == [str(number).encode() for number in range(47)]
    assert RequestRecord.objects.filter(started_at=moments[1]).count() == 16
    assert RequestRecord.objects.filter(started_at__gt=moments[1]).count() == 15


def test_no_two_bodies_are_encrypted_with_the_same_nonce() -> None:
    entries = [with_bodies() for _ in range(300)]
    sealed = [payload.bodies for payload in (*seal(entries, "encrypted"), *seal(entries, "encrypted")) if payload]
    assert len({bodies[:12] for bodies in sealed}) == 600


def test_totals_add_up_over_batches(start_recorder: StartRecorder) -> None:
    recorder = start_recorder()
    for _ in range(3):
        recorder.put(make_entry(api_key_id=5, api_key_name="app"))
    recorder.put(make_entry(api_key_id=6, api_key_name="cron", token_source="estimated"))
    eventually(lambda: RequestRecord.objects.count() == 4)
    recorder.put(make_entry(api_key_id=5, api_key_name="app", outcome="node_error", status=502))
    recorder.put(make_entry(api_key_id=5, api_key_name="app", outcome="cancelled", status=499))
    recorder.stop()
    app, cron = TokenTotal.objects.order_by("api_key_id")
    assert (app.requests, app.failures, app.prompt_tokens, app.completion_tokens) == (5, 1, 35, 15)
    assert (app.day, app.node_name, app.model, app.api_key_name) == (datetime.now(UTC).date(), "gpu-1", "llama", "app")
    assert app.duration_ms == pytest.approx(600)
    assert (cron.requests, cron.estimated_requests, app.estimated_requests) == (1, 1, 0)


def test_names_that_no_node_served_make_no_rows_of_totals(start_recorder: StartRecorder) -> None:
    recorder = start_recorder()
    for number in range(5):
        recorder.put(
            make_entry(model=f"made-up-{number}", served_model="", node_id=None, outcome="no_route", status=404)
        )
    recorder.stop()
    total = TokenTotal.objects.get()
    assert (total.model, total.requests, total.failures) == ("", 5, 5)


def test_listing_models_is_a_row_and_no_use_of_a_model(start_recorder: StartRecorder) -> None:
    recorder = start_recorder()
    recorder.put(make_entry(kind="models", model="", served_model="", node_id=None, node_name=""))
    recorder.stop()
    assert RequestRecord.objects.get().kind == "models"
    assert not TokenTotal.objects.exists()


def test_nodes_count_attempts_successes_and_their_own_failures(start_recorder: StartRecorder) -> None:
    first = Node.objects.create(name="gpu-1", base_url="http://127.0.0.1:1")
    second = Node.objects.create(name="gpu-2", base_url="http://127.0.0.1:2")
    failed = AttemptEntry(node_id=first.pk, node_name="gpu-1", selection_reason="least_busy", status=500)
    good = AttemptEntry(node_id=second.pk, node_name="gpu-2", selection_reason="retry", status=200)
    refused = AttemptEntry(node_id=second.pk, node_name="gpu-2", selection_reason="least_busy", status=400)
    recorder = start_recorder()
    recorder.put(make_entry(attempts=[failed, good]))
    recorder.put(make_entry(attempts=[refused], outcome="client_error", status=400))
    recorder.stop()
    counters = ("total_requests", "successful_requests", "failed_requests")
    assert Node.objects.values_list(*counters).get(pk=first.pk) == (1, 0, 1)
    assert Node.objects.values_list(*counters).get(pk=second.pk) == (2, 1, 0)


@pytest.mark.parametrize("mode", ["encrypted", "plain"])
def test_bodies_are_kept_compressed_apart_from_the_row(start_recorder: StartRecorder, mode: str) -> None:
    entry = with_bodies(response_body=b'{"text": "' + b"Tokyo " * 500 + b'"}', response_truncated=True)
    request, response = entry.request_body, entry.response_body
    recorder = start_recorder(payloads=mode)
    recorder.put(entry)
    recorder.stop()
    payload = RequestPayload.objects.get()
    assert payload.encrypted is (mode == "encrypted")
    stored = bytes(payload.bodies)
    assert len(stored) < 1000
    assert b"Tokyo" not in stored
    bodies = unpack(stored, encrypted=payload.encrypted)
    assert (bodies.request, bodies.response) == (request, response)
    assert (payload.request_truncated, payload.response_truncated) == (False, True)


def test_bodies_that_the_first_version_stored_are_still_read() -> None:
    packed = b"\1" + zlib.compress(msgspec.msgpack.encode((b"asked", b"answered")), 1)
    for stored, encrypted in ((packed, False), (encrypt_bytes(packed, "history.payload"), True)):
        bodies = unpack(stored, encrypted=encrypted)
        assert (bodies.request, bodies.response) == (b"asked", b"answered")


def test_no_bodies_are_kept_where_the_operator_wants_none(start_recorder: StartRecorder) -> None:
    recorder = start_recorder(payloads="none")
    recorder.put(with_bodies())
    recorder.stop()
    assert RequestRecord.objects.count() == 1
    assert not RequestPayload.objects.exists()


def test_the_dashboard_is_told_at_most_twice_a_second(start_recorder: StartRecorder) -> None:
    told: list[float] = []
    end = events.subscribe("history", lambda *_: told.append(time.monotonic()))
    recorder = start_recorder()
    started = time.monotonic()
    while time.monotonic() - started < 1.5:
        recorder.put(make_entry())
        time.sleep(0.01)
    last = time.monotonic()
    eventually(lambda: told and told[-1] > last - 0.3 and recorder.health().backlog == 0, within=2)
    end()
    assert 2 <= len(told) <= 5
    assert min(later - earlier for earlier, later in itertools.pairwise(told)) > 0.45


def test_the_keys_last_use_is_noted(start_recorder: StartRecorder, hana: User, mint_key: MintKey) -> None:
    key, _ = mint_key(hana)
    recorder = start_recorder()
    moment = datetime.now(UTC)
    recorder.put(make_entry(api_key_id=key.pk, started_at=moment))
    recorder.stop()
    key.refresh_from_db()
    assert key.last_used_at == moment


def test_put_costs_the_event_loop_nothing_to_speak_of(start_recorder: StartRecorder) -> None:
    recorder = start_recorder()
    entries = [with_bodies() for _ in range(2000)]
    slowest = 0.0
    for entry in entries:
        started = time.thread_time()
        recorder.put(entry)
        slowest = max(slowest, time.thread_time() - started)
    assert slowest < 0.01


def test_a_batch_of_large_bodies_waits_for_no_clock(
    start_recorder: StartRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "FLUSH_SECONDS", 600.0)
    recorder = start_recorder()
    for _ in range(recorder_module.BATCH_BYTES // 1_000_000 + 1):
        recorder.put(make_entry(request_body=b"x" * 1_000_000))
    eventually(RequestPayload.objects.exists, within=30.0)


def test_what_was_put_just_before_the_end_is_kept(start_recorder: StartRecorder) -> None:
    recorder = start_recorder()
    recorder.put(make_entry())
    assert recorder.stop()
    assert RequestRecord.objects.count() == 1
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("llmlb-history")]


def test_overlong_texts_are_cut_to_fit(start_recorder: StartRecorder) -> None:
    long: dict[str, Any] = {"model": "m" * 1000, "request_id": "r" * 100, "error_message": "e" * 1000}
    recorder = start_recorder()
    recorder.put(make_entry(**long))
    recorder.stop()
    row = RequestRecord.objects.get()
    assert (len(row.model), len(row.request_id), len(row.error_message)) == (300, 64, 300)
