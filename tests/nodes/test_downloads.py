"""Nodes are asked for models, followed to the end, and asked again after whatever broke off."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from access.models import AuditEvent, User
from access.permissions import Permission
from nodes import polling
from nodes.background import background
from nodes.downloads import following, recording
from nodes.fake_node import Behaviour, FakeNode
from nodes.models import Download, DownloadState, Node, NodeStatus
from tests.conftest import MintKey
from tests.nodes.conftest import StartFake, make_node, models_of, run_ticks

pytestmark = pytest.mark.django_db(transaction=True)
KINDS = ["xllm", "ollama", "lm_studio"]
QUICK: dict[str, Any] = {"download_seconds": 0.3}


@pytest.fixture
def api(ken: User, signed_in: Callable[[User], Client]) -> Client:
    """An operator's browser."""
    return signed_in(ken)


def fake_of(start_fake: StartFake, kind: str, **behaviour: Any) -> FakeNode:
    return start_fake(["org/first"], kind=kind, behaviour=Behaviour(**{**QUICK, **behaviour}))


def ask(api: Client, node: Node, **body: Any) -> Any:
    return api.post(f"/api/nodes/{node.pk}/download", body, content_type="application/json")


def progress(api: Client, node: Node) -> dict[str, Any]:
    found: dict[str, Any] = api.get(f"/api/nodes/{node.pk}/download/progress").json()["tasks"][0]
    return found


def follow(row: Download | None = None) -> Download:
    """Tick, as beat does, until a download is over."""
    wanted = Download.objects.get() if row is None else row

    def is_over() -> bool:
        return not Download.objects.get(pk=wanted.pk).is_unfinished

    run_ticks(is_over, within=20, every=0.05, tick=following.follow_due)
    return Download.objects.get(pk=wanted.pk)


@pytest.mark.parametrize("kind", KINDS)
def test_a_node_fetches_a_model_and_lists_it(kind: str, start_fake: StartFake, api: Client) -> None:
    fake = fake_of(start_fake, kind)
    node = make_node(fake, node_type=kind)
    answer = ask(api, node, model="org/second")
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    follow()
    told = progress(api, node)
    assert (told["status"], told["progress"], told["error"]) == ("success", 1.0, "")
    assert told["downloaded_bytes"] == told["total_bytes"] == fake.behaviour.download_bytes
    run_ticks(lambda: models_of(node) == {"org/first", "org/second"}, within=10, tick=polling.poll_due)


@pytest.mark.parametrize("kind", KINDS)
def test_progress_is_told_meanwhile(kind: str, start_fake: StartFake, api: Client) -> None:
    node = make_node(fake_of(start_fake, kind, download_seconds=3.0), node_type=kind)
    ask(api, node, model="org/second")
    seen: list[float] = []

    def is_over() -> bool:
        told = progress(api, node)
        seen.append(told["progress"] or 0.0)
        assert told["status"] != "failed"
        return bool(told["status"] == "success")

    run_ticks(is_over, within=20, every=0.1, tick=following.follow_due)
    assert seen == sorted(seen)
    assert len({share for share in seen if 0 < share < 1}) >= 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_node_that_fails_says_why(kind: str, start_fake: StartFake, api: Client) -> None:
    fake = fake_of(start_fake, kind, download_error="the disk is full")
    node = make_node(fake, node_type=kind)
    ask(api, node, model="org/second")
    row = follow()
    assert row.state == DownloadState.FAILED
    assert row.error == ("the disk is full" if kind != "lm_studio" else row.error)
    assert row.error
    assert models_of(node) == {"org/first"}


def test_what_a_node_refuses_is_shown_in_its_words(start_fake: StartFake, api: Client) -> None:
    node = make_node(fake_of(start_fake, "xllm"), node_type="xllm")
    ask(api, node, model="no-repository")
    assert follow().error == "a model is named org/repository"


def test_words_that_are_no_text_do_no_harm(start_fake: StartFake, api: Client) -> None:
    node = make_node(fake_of(start_fake, "ollama", download_error="bad\x00 \ud800 words"), node_type="ollama")
    ask(api, node, model="a")
    assert follow().error == "bad? ? words"


def test_asking_twice_is_one_download(start_fake: StartFake, api: Client) -> None:
    fake = fake_of(start_fake, "ollama")
    node = make_node(fake, node_type="ollama")
    first, second = ask(api, node, model="a:1b").json(), ask(api, node, model="a:1b").json()
    assert first["task_id"] == second["task_id"]
    follow()
    assert len([request for request in fake.seen if request.path == "/api/pull"]) == 1
    assert ask(api, node, model="a:1b").json()["task_id"] != first["task_id"]  # over: it may be wanted anew


def test_a_repository_is_named_in_each_engines_way(start_fake: StartFake, api: Client) -> None:
    fakes = {kind: fake_of(start_fake, kind) for kind in KINDS}
    for kind, fake in fakes.items():
        ask(api, make_node(fake, kind, node_type=kind), hf_repo="org/Tiny-GGUF", quantization="Q4_0")
    for row in Download.objects.all():
        follow(row)
    sent = {
        kind: next(request.body for request in fake.seen if request.method == "POST") for kind, fake in fakes.items()
    }
    assert b'"hf.co/org/Tiny-GGUF:Q4_0"' in sent["ollama"]
    assert b'"https://huggingface.co/org/Tiny-GGUF"' in sent["lm_studio"]
    assert b'"quantization":"Q4_0"' in sent["lm_studio"].replace(b" ", b"")
    assert b'"model":"org/Tiny-GGUF"' in sent["xllm"].replace(b" ", b"")
    assert set(Download.objects.values_list("model", flat=True)) == {"org/Tiny-GGUF:Q4_0"}


@pytest.mark.parametrize("kind", ["xllm", "ollama"])
def test_a_cancelled_download_ends_and_the_node_is_told(kind: str, start_fake: StartFake, api: Client) -> None:
    fake = fake_of(start_fake, kind, download_seconds=60)
    node = make_node(fake, node_type=kind)
    task = ask(api, node, model="org/second").json()["task_id"]
    run_ticks(lambda: progress(api, node)["downloaded_bytes"] > 0, within=10, every=0.1, tick=following.follow_due)
    answer = api.delete(f"/api/nodes/{node.pk}/download/{task}")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    assert background().wait_idle(10)
    assert progress(api, node)["status"] == "cancelled"
    if kind == "xllm":
        assert fake.downloads.tasks["task-1"].cancelled
    else:
        pull = next(request for request in fake.seen if request.path == "/api/pull")
        run_ticks(lambda: pull.aborted, within=5, every=0.05, tick=lambda: None)


def test_a_node_that_dies_meanwhile_is_asked_again(start_fake: StartFake, api: Client) -> None:
    fake = fake_of(start_fake, "ollama", download_seconds=60)
    node = make_node(fake, node_type="ollama")
    ask(api, node, model="a:1b")
    run_ticks(lambda: progress(api, node)["downloaded_bytes"] > 0, within=10, every=0.1, tick=following.follow_due)
    fake.run(fake.kill())
    run_ticks(lambda: Download.objects.get().interruptions > 0, within=10, every=0.1, tick=following.follow_due)
    fake.behaviour = Behaviour(**QUICK)
    fake.run(fake.start())
    Download.objects.update(followed_until=timezone.now())
    assert follow().state == DownloadState.SUCCESS


def test_a_node_that_forgot_is_asked_anew(start_fake: StartFake, api: Client) -> None:
    fake = fake_of(start_fake, "xllm", download_seconds=60)
    node = make_node(fake, node_type="xllm")
    ask(api, node, model="org/second")
    run_ticks(lambda: bool(Download.objects.get().remote_id), within=10, every=0.1, tick=following.follow_due)
    fake.behaviour = Behaviour(**QUICK)
    fake.downloads.tasks.clear()  # as after a restart
    assert follow().state == DownloadState.SUCCESS


def test_a_node_that_stays_away_is_given_up(api: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    node = make_node("http://127.0.0.1:9", node_type="ollama")
    ask(api, node, model="a:1b")
    row = Download.objects.get()
    for _turn in range(recording.INTERRUPTIONS + 1):
        Download.objects.update(followed_until=timezone.now())
        assert following.follow_due() == 1
        assert background().wait_idle(10)
    row.refresh_from_db()
    assert (row.state, row.error) == (DownloadState.FAILED, "the node refuses connections")
    assert following.follow_due() == 0


def test_a_worker_that_died_is_replaced(start_fake: StartFake, api: Client) -> None:
    node = make_node(fake_of(start_fake, "xllm"), node_type="xllm")
    ask(api, node, model="org/second")
    Download.objects.update(followed_until=timezone.now() + timedelta(seconds=60))
    assert following.follow_due() == 0  # another worker's
    Download.objects.update(followed_until=timezone.now() - timedelta(seconds=1))
    assert follow().state == DownloadState.SUCCESS


# --- deleting


@pytest.mark.parametrize("kind", ["xllm", "ollama"])
def test_a_deleted_model_is_out_at_once(kind: str, start_fake: StartFake, api: Client) -> None:
    fake = fake_of(start_fake, kind)
    node = make_node(fake, node_type=kind)
    path = f"/api/nodes/{node.pk}/models/delete"
    assert api.post(path, {"model": "org/first"}, content_type="application/json").status_code == 204
    assert (fake.models, models_of(node)) == ([], set())
    assert AuditEvent.objects.filter(action="node.delete_model", target=node.name).exists()


def test_deletions_that_cannot_be_are_refused(start_fake: StartFake, api: Client) -> None:
    studio = make_node(fake_of(start_fake, "lm_studio"), "studio", node_type="lm_studio")
    away = make_node("http://127.0.0.1:9", "away", node_type="ollama", models=("a",))

    def delete(node: Node, model: str) -> int:
        path = f"/api/nodes/{node.pk}/models/delete"
        return api.post(path, {"model": model}, content_type="application/json").status_code

    assert delete(studio, "org/first") == 400
    assert delete(away, "no-such") == 404
    assert delete(away, "a") == 502
    assert models_of(away) == {"a"}


# --- who may, and what is refused


def test_engines_that_cannot_fetch_say_so(start_fake: StartFake, api: Client) -> None:
    answer = ask(api, make_node(start_fake(["a"], kind="vllm"), node_type="vllm"), model="a")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_node_type")


def test_refusals(start_fake: StartFake, api: Client) -> None:
    node = make_node(fake_of(start_fake, "xllm"), node_type="xllm")
    assert ask(api, node).status_code == 400
    assert ask(api, node, model="a\nb").status_code == 400
    assert ask(api, node, model="x" * 301).status_code == 400
    assert api.post("/api/nodes/99/download", {"model": "a"}, content_type="application/json").status_code == 404
    assert api.get("/api/nodes/99/download/progress").status_code == 404
    assert api.delete(f"/api/nodes/{node.pk}/download/99").status_code == 404


def test_viewers_see_progress_and_order_nothing(
    start_fake: StartFake, yui: User, ken: User, mint_key: MintKey, signed_in: Any, with_key: Any
) -> None:
    node = make_node(fake_of(start_fake, "xllm"), node_type="xllm")
    viewer = signed_in(yui)
    assert viewer.get(f"/api/nodes/{node.pk}/download/progress").status_code == 200
    assert ask(viewer, node, model="a/b").status_code == 403
    reader = with_key(mint_key(ken, Permission.ENDPOINTS_READ)[1])
    assert ask(reader, node, model="a/b").status_code == 403
    assert not Download.objects.exists()
    manager = with_key(mint_key(ken, Permission.ENDPOINTS_MANAGE, name="deploy")[1])
    assert ask(manager, node, model="a/b").status_code == 202
    assert "deploy" in Download.objects.get().requested_by
    assert AuditEvent.objects.get(action="node.download").details == {"model": "a/b"}


def test_old_downloads_go(start_fake: StartFake) -> None:
    node = make_node("http://127.0.0.1:9", status=NodeStatus.OFFLINE)
    for days in (31, 29):
        Download.objects.create(
            node=node,
            model=f"{days}",
            state=DownloadState.SUCCESS,
            finished_at=timezone.now() - timedelta(days=days),
        )
    assert recording.prune_downloads() == 1
    assert Download.objects.get().model == "29"
