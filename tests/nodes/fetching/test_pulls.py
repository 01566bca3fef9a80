"""A model is fetched whole or not at all, whatever its server does."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nodes.runtime.fetching.progress import PullState
from nodes.runtime.fetching.pulls import ABANDONED_SECONDS, RESERVE_BYTES, STAGING
from nodes.runtime.fetching.sources import Wish
from tests.nodes.fetching.conftest import OTHER, REPO, WEIGHTS, Pull, in_place, pulls_of
from tests.support.file_server import FileServer

# --- what a server may do -----------------------------------------------------------------------------------------


def test_the_only_gguf_of_a_repository_comes_into_a_folder_of_its_name(
    hub: FileServer, pull: Pull, models: Path
) -> None:
    hub.add_repository(REPO, {"README.md": b"hi", "tiny.Q4_0.gguf": WEIGHTS})
    done = pull()
    assert (done.status, done.model, done.error) == (PullState.SUCCESS, "some-org/tiny-gguf", "")
    assert (done.downloaded_bytes, done.total_bytes, done.share) == (len(WEIGHTS), len(WEIGHTS), 1.0)
    assert in_place(models) == {"some-org/tiny-gguf/tiny.Q4_0.gguf"}
    assert (models / "some-org/tiny-gguf/tiny.Q4_0.gguf").read_bytes() == WEIGHTS


def test_a_transfer_that_breaks_off_goes_on_where_it_was(hub: FileServer, pull: Pull, models: Path) -> None:
    hub.add_repository(REPO, {"tiny.gguf": WEIGHTS}, drop_after=100_000)
    assert pull().status is PullState.SUCCESS
    assert [asked.headers.get("range") for asked in hub.asked_for("tiny.gguf")] == [None, "bytes=100000-"]
    assert (models / "some-org/tiny-gguf/tiny.gguf").read_bytes() == WEIGHTS


def test_a_later_run_goes_on_from_what_an_earlier_one_has_left(hub: FileServer, pull: Pull, models: Path) -> None:
    hub.add_repository(REPO, {"tiny.gguf": WEIGHTS}, slow=0.1)
    begun = pulls_of(hub, models).start(Wish(REPO))
    while not begun.progress.downloaded_bytes:
        assert not begun.over.wait(0.01)
    begun.cancel()
    assert begun.wait(10)
    hub.asked.clear()
    done = pull()
    assert (done.status, done.downloaded_bytes) == (PullState.SUCCESS, len(WEIGHTS))
    assert [asked.headers["range"] for asked in hub.asked_for("tiny.gguf")] != ["bytes=0-"]
    assert (models / "some-org/tiny-gguf/tiny.gguf").read_bytes() == WEIGHTS


def test_a_server_without_ranges_is_read_from_the_beginning_again(hub: FileServer, pull: Pull, models: Path) -> None:
    hub.add_repository(REPO, {"tiny.gguf": WEIGHTS}, drop_after=100_000, ranges=False)
    done = pull()
    assert (done.status, done.downloaded_bytes) == (PullState.SUCCESS, len(WEIGHTS))
    assert (models / "some-org/tiny-gguf/tiny.gguf").read_bytes() == WEIGHTS


def test_a_file_without_a_hash_is_resumed_only_if_it_has_not_changed(
    store: FileServer, hub: FileServer, pull: Pull, models: Path
) -> None:
    served = store.add("/tiny.gguf", WEIGHTS, drop_after=100_000, etag='"one"')
    env = {"LLM_RUNTIME_ALLOWED_ORIGINS": store.url}
    url = f"{store.url}/tiny.gguf"
    assert pull(url, env=env).status is PullState.SUCCESS
    resumed = store.asked_for("tiny.gguf")[1].headers
    assert (resumed["range"], resumed["if-range"]) == ("bytes=100000-", '"one"')
    (models / "tiny.gguf").unlink()
    served.asked, served.times, served.ranges = 0, 99, False  # never more than the first part
    assert pull(url, env=env).status is PullState.FAILED
    served.content, served.etag, served.times, served.ranges = OTHER, '"two"', 0, True
    assert pull(url, env=env).status is PullState.SUCCESS
    assert (models / "tiny.gguf").read_bytes() == OTHER


def test_another_hash_than_promised_leaves_nothing_and_says_so(hub: FileServer, pull: Pull, models: Path) -> None:
    hub.add_repository(REPO, {"tiny.gguf": WEIGHTS})
    hub.file(REPO, "tiny.gguf").content = OTHER
    done = pull()
    assert (done.status, done.downloaded_bytes) == (PullState.FAILED, 0)
    assert "another hash" in done.error
    assert in_place(models) == set()
    assert not list((models / STAGING).rglob("*.part"))


def test_a_small_file_with_another_hash_is_refused_too(hub: FileServer, pull: Pull, models: Path) -> None:
    files = {"config.json": b'{"a": 1}', "tokenizer.json": b"{}", "model.safetensors": WEIGHTS}
    hub.add_repository(REPO, files)
    hub.file(REPO, "config.json").content = b'{"a": 2}'
    assert "config.json has another hash" in pull().error
    assert in_place(models) == set()


@pytest.mark.parametrize("length", [len(WEIGHTS) - 5, len(WEIGHTS) + 5])
def test_another_length_than_promised_is_refused(hub: FileServer, pull: Pull, models: Path, length: int) -> None:
    hub.add_repository(REPO, {"tiny.gguf": WEIGHTS}, length=length, times=99)
    assert "were promised" in pull().error
    assert in_place(models) == set()


def test_an_answer_without_a_length_is_taken_to_its_end(store: FileServer, pull: Pull, models: Path) -> None:
    store.add("/tiny.gguf", WEIGHTS, chunked=True)
    env = {"LLM_RUNTIME_ALLOWED_ORIGINS": store.url}
    done = pull(f"{store.url}/tiny.gguf", env=env, sha256=hashlib.sha256(WEIGHTS).hexdigest())
    assert (done.status, done.model) == (PullState.SUCCESS, "tiny")
    assert (models / "tiny.gguf").read_bytes() == WEIGHTS


def test_a_server_in_trouble_is_asked_again(hub: FileServer, pull: Pull) -> None:
    hub.add_repository(REPO, {"tiny.gguf": WEIGHTS}, status=503, times=3)
    assert pull().status is PullState.SUCCESS
    assert hub.file(REPO, "tiny.gguf").asked == 4


def test_a_server_that_stays_in_trouble_is_given_up(hub: FileServer, pull: Pull) -> None:
    hub.add_repository(REPO, {"tiny.gguf": WEIGHTS}, status=503, times=99)
    done = pull()
    assert done.status is PullState.FAILED
    assert "answered 503; given up after 5 attempts" in done.error


def test_too_many_requests_are_followed_by_the_pause_that_was_asked_for(hub: FileServer, pull: Pull) -> None:
    hub.add_repository(REPO, {"tiny.gguf": WEIGHTS}, status=429, headers={"Retry-After": "1"})
    done = pull()
    assert done.status is PullState.SUCCESS
    assert done.finished_at is not None
    assert done.finished_at - done.started_at >= 1.0


def test_a_private_repository_needs_a_token_and_gets_it(
    hub: FileServer, pull: Pull, caplog: pytest.LogCaptureFixture
) -> None:
    hub.token = "hf_secret_of_mine"
    hub.add_repository(REPO, {"tiny.gguf": WEIGHTS})
    assert "HF_TOKEN" in pull().error
    with caplog.at_level(logging.DEBUG):
        assert pull(env={"HF_TOKEN": "hf_secret_of_mine"}).status is PullState.SUCCESS
    assert "hf_secret_of_mine" not in caplog.text


def test_the_token_may_stand_in_a_file(hub: FileServer, pull: Pull, tmp_path: Path) -> None:
    hub.token = "hf_secret_of_mine"
    hub.add_repository(REPO, {"tiny.gguf": WEIGHTS})
    (tmp_path / "token").write_text("hf_secret_of_mine\n")
    assert pull(env={"HF_TOKEN_FILE": str(tmp_path / "token")}).status is PullState.SUCCESS


def test_a_redirect_to_another_allowed_origin_carries_no_token(
    hub: FileServer, store: FileServer, pull: Pull, models: Path
) -> None:
    store.add("/signed", WEIGHTS)
    hub.token = "hf_secret_of_mine"
    hub.add_repository(REPO, {"tiny.gguf": WEIGHTS}, redirect=f"{store.url}/signed?signature=xyz")
    env = {"HF_TOKEN": "hf_secret_of_mine", "LLM_RUNTIME_ALLOWED_ORIGINS": store.url}
    assert pull(env=env).status is PullState.SUCCESS
    assert "authorization" not in store.asked[0].headers
    assert hub.asked_for("tiny.gguf")[0].headers["authorization"] == "Bearer hf_secret_of_mine"
    assert (models / "some-org/tiny-gguf/tiny.gguf").read_bytes() == WEIGHTS


def test_a_redirect_to_a_foreign_origin_is_not_followed(
    hub: FileServer, store: FileServer, pull: Pull, models: Path
) -> None:
    store.add("/file", WEIGHTS)
    hub.add_repository(REPO, {"tiny.gguf": WEIGHTS}, redirect=f"{store.url}/file")
    assert "is not an allowed origin" in pull().error
    assert store.asked == []
    assert in_place(models) == set()


def test_redirects_without_end_end(hub: FileServer, pull: Pull) -> None:
    hub.add_repository(REPO, {"tiny.gguf": WEIGHTS}, redirect=f"{hub.url}/{REPO}/resolve/abc123/tiny.gguf")
    assert "redirects without end" in pull().error


def test_a_server_that_falls_silent_is_left(hub: FileServer, pull: Pull) -> None:
    hub.add_repository(REPO, {"tiny.gguf": WEIGHTS[:150_000]}, slow=0.8)  # longer than the time that is waited here
    done = pull(silence=0.4)
    # Each attempt brings a piece before the silence, so the pull goes on by resuming.
    assert done.status is PullState.SUCCESS
    assert hub.file(REPO, "tiny.gguf").asked > 1


# --- sharing, place, order ----------------------------------------------------------------------------------------


def test_two_who_ask_for_the_same_share_one_download(hub: FileServer, models: Path) -> None:
    hub.add_repository(REPO, {"tiny.gguf": WEIGHTS}, slow=0.05)
    pulls = pulls_of(hub, models)
    first, second = pulls.start(Wish(REPO)), pulls.start(Wish(f"hf.co/{REPO}"))
    assert first is second
    assert first.wait(10)
    assert hub.file(REPO, "tiny.gguf").asked == 1


def test_two_processes_share_one_download_too(hub: FileServer, models: Path) -> None:
    hub.add_repository(REPO, {"tiny.gguf": WEIGHTS}, slow=0.05)
    one, other = pulls_of(hub, models), pulls_of(hub, models)  # each with locks and threads of its own
    first, second = one.start(Wish(REPO)), other.start(Wish(f"{REPO}@main"))
    assert first.wait(10)
    assert second.wait(10)
    assert {first.progress.status, second.progress.status} == {PullState.SUCCESS}
    assert hub.file(REPO, "tiny.gguf").asked == 1


def test_what_is_there_already_is_not_fetched_again(hub: FileServer, pull: Pull) -> None:
    hub.add_repository(REPO, {"tiny.gguf": WEIGHTS})
    assert pull().status is PullState.SUCCESS
    again = pull()
    assert (again.status, again.downloaded_bytes) == (PullState.SUCCESS, len(WEIGHTS))
    assert hub.file(REPO, "tiny.gguf").asked == 1


def test_a_damaged_file_is_fetched_again(hub: FileServer, pull: Pull, models: Path) -> None:
    hub.add_repository(REPO, {"tiny.gguf": WEIGHTS})
    assert pull().status is PullState.SUCCESS
    (models / "some-org/tiny-gguf/tiny.gguf").write_bytes(OTHER)
    assert pull().status is PullState.SUCCESS
    assert (models / "some-org/tiny-gguf/tiny.gguf").read_bytes() == WEIGHTS


def test_nothing_of_a_model_is_seen_before_it_is_whole(hub: FileServer, models: Path) -> None:
    files = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": WEIGHTS}
    hub.add_repository(REPO, files, slow=0.05)
    begun = pulls_of(hub, models).start(Wish(REPO))
    seen: list[set[str]] = []
    while not begun.over.is_set():
        seen.append(in_place(models))
    assert begun.progress.status is PullState.SUCCESS
    whole = {f"some-org/tiny-gguf/{name}" for name in files}
    assert all(found in (set(), whole) for found in seen)
    assert in_place(models) == whole


def test_a_cancelled_pull_leaves_nothing_in_place(hub: FileServer, models: Path) -> None:
    hub.add_repository(REPO, {"tiny.gguf": WEIGHTS}, slow=0.2)
    pulls = pulls_of(hub, models)
    begun = pulls.start(Wish(REPO))
    pulls.close()
    assert begun.progress.status is PullState.CANCELLED
    assert in_place(models) == set()


def test_a_full_disk_is_seen_before_the_first_byte(
    hub: FileServer, pull: Pull, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add_repository(REPO, {"tiny.gguf": WEIGHTS})
    usage = shutil._ntuple_diskusage(10**12, 10**12, RESERVE_BYTES + 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert "the disk has" in pull().error
    assert hub.file(REPO, "tiny.gguf").asked == 0


def test_a_disk_that_fills_up_meanwhile_keeps_what_has_arrived(tmp_path: Path, hub: FileServer) -> None:
    hub.add_repository(REPO, {"tiny.gguf": WEIGHTS})
    script = (
        "import resource, signal, sys; from pathlib import Path\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"  # a write beyond fails, as on a full disk
        "from nodes.runtime.fetching.pulls import Pulls\n"
        "from nodes.runtime.fetching.origins import Origins\n"
        "from nodes.runtime.fetching.sources import Wish\n"
        "pull = Pulls(Path(sys.argv[1]), Origins.from_environment()).start(Wish(sys.argv[2]))\n"
        "pull.wait(20); print(pull.progress.status, pull.progress.error)"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), REPO],
        env={"HF_BASE_URL": hub.url, "PATH": ""},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert "failed tiny.gguf cannot be written" in run.stdout, run.stderr
    assert in_place(tmp_path) == set()


def test_what_was_left_long_ago_gives_its_space_back(hub: FileServer, pull: Pull, models: Path) -> None:
    week_ago = time.time() - ABANDONED_SECONDS - 60
    for name in ("old", "new"):
        left = models / STAGING / name / "model.gguf.part"
        left.parent.mkdir(parents=True)
        left.write_bytes(b"x")
        if name == "old":
            for path in (left, left.parent):
                os.utime(path, (week_ago, week_ago))
    hub.add_repository(REPO, {"tiny.gguf": WEIGHTS})
    assert pull().status is PullState.SUCCESS
    assert [path.name for path in (models / STAGING).glob("*/")] == ["new"]


def test_a_link_that_leads_out_of_the_directory_is_not_followed(
    hub: FileServer, pull: Pull, models: Path, tmp_path: Path
) -> None:
    hub.add_repository(REPO, {"tiny.gguf": WEIGHTS})
    models.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (models / "some-org").symlink_to(tmp_path / "elsewhere")
    assert "leads out of the models directory" in pull().error
    assert list((tmp_path / "elsewhere").iterdir()) == []


# --- naming and progress ----------------------------------------------------------------------------------------------


def test_a_page_of_hugging_face_stands_for_its_file(hub: FileServer, pull: Pull, models: Path) -> None:
    hub.add_repository(REPO, {"tiny.Q4_0.gguf": WEIGHTS, "tiny.Q8_0.gguf": OTHER})
    assert pull(f"https://huggingface.co/{REPO}/blob/main/tiny.Q8_0.gguf").status is PullState.SUCCESS
    assert in_place(models) == {"some-org/tiny-gguf/tiny.q8_0/tiny.Q8_0.gguf"}


def test_a_second_quantization_stands_beside_the_first(hub: FileServer, pull: Pull, models: Path) -> None:
    hub.add_repository(REPO, {"tiny.Q4_0.gguf": WEIGHTS, "tiny.Q8_0.gguf": OTHER})
    assert "specify a filename or a quantization: Q4_0, Q8_0" in pull().error
    assert pull(f"{REPO}:Q4_0").model == "some-org/tiny-gguf/tiny.q4_0"
    assert pull(quantization="q8_0").model == "some-org/tiny-gguf/tiny.q8_0"
    assert "there is Q4_0, Q8_0" in pull(f"{REPO}:Q2_K").error


def test_progress_counts_bytes_and_speed(hub: FileServer, models: Path) -> None:
    hub.add_repository(REPO, {"tiny.gguf": WEIGHTS}, slow=0.1)
    begun = pulls_of(hub, models).start(Wish(REPO))
    looks = []
    while not begun.over.wait(0.02):
        looks.append(begun.progress)
    shares = [look.share or 0.0 for look in looks]
    assert shares == sorted(shares)
    assert any(0 < share < 1 for share in shares)
    assert max(look.bytes_per_second for look in looks) > 0
    assert begun.progress.bytes_per_second == 0


def test_the_node_is_told_when_a_model_has_arrived(hub: FileServer, models: Path) -> None:
    arrived: list[int] = []
    hub.add_repository(REPO, {"tiny.gguf": WEIGHTS})
    begun = pulls_of(hub, models, arrived=lambda: arrived.append(1)).start(Wish(REPO))
    assert begun.wait(10)
    assert arrived == [1]
