"""A mix that cannot work is refused with an id and a way out; a strange one is warned of."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from llmlb_site.serve.checks import deployment_problems, file_system_of, variable_names


def ids(environ: Mapping[str, str] | None = None, *, worker: bool = True, **changes: Any) -> list[str]:
    plain = dataclasses.replace(settings.LLMLB, redis_url=None, database_url=None, data_dir=Path("/tmp/llmlb"))
    config = dataclasses.replace(plain, **changes)
    return [str(each.id) for each in deployment_problems(config, environ or {}, worker=worker)]


REDIS: dict[str, Any] = {"redis_url": "redis://127.0.0.1"}
POSTGRESQL: dict[str, Any] = {"database_url": "postgres://db/llmlb"}


def test_both_profiles_are_clean() -> None:
    assert ids() == []
    assert ids(**REDIS, **POSTGRESQL) == []
    assert ids(**REDIS, **POSTGRESQL, worker=False) == []
    assert ids(**REDIS, **POSTGRESQL, processes=8) == []


def test_two_processes_need_redis() -> None:
    assert ids(processes=2) == ["llmlb.serve.E001"]


def test_two_processes_need_postgresql() -> None:
    assert ids(processes=2, **REDIS) == ["llmlb.serve.E003", "llmlb.serve.W001"]


def test_without_redis_the_worker_must_be_embedded() -> None:
    assert ids(worker=False) == ["llmlb.serve.E002"]


def test_redis_with_sqlite_is_for_one_host() -> None:
    assert ids(**REDIS) == ["llmlb.serve.W001"]


def test_sqlite_on_a_network_file_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmlb_site.serve.checks.file_system_of", lambda path: "nfs4")
    assert ids() == ["llmlb.serve.W002"]
    assert ids(**REDIS, **POSTGRESQL) == []


def test_an_unknown_variable_is_named_with_the_nearest_known_one() -> None:
    config = dataclasses.replace(settings.LLMLB, redis_url=None, database_url=None)
    (problem,) = deployment_problems(config, {"LLMLB_QUEUE_TIMEOUT": "5", "LLMLB_PORT_FILE": "/x", "HOME": "/"})
    assert problem.id == "llmlb.serve.W003"
    assert "LLMLB_QUEUE_TIMEOUT" in str(problem.msg)
    assert problem.hint == "Did you mean LLMLB_QUEUE_TIMEOUT_SECS?"


def test_every_problem_has_a_hint() -> None:
    bad = dataclasses.replace(settings.LLMLB, processes=2, redis_url=None)
    problems = list(deployment_problems(bad, {"LLMLB_ODD": ""}, worker=False))
    assert len(problems) == 3
    assert all(each.hint and str(each.msg) for each in problems)


def test_the_file_system_is_that_of_the_longest_mount_point() -> None:
    mounts = ["/dev/vda / ext4 rw 0 0", "srv:/x /srv nfs4 rw 0 0", "tmpfs /srv/fast tmpfs rw 0 0"]
    assert file_system_of(Path("/home/llmlb"), mounts) == "ext4"
    assert file_system_of(Path("/srv/llmlb"), mounts) == "nfs4"
    assert file_system_of(Path("/srv/fast/llmlb"), mounts) == "tmpfs"
    assert file_system_of(Path("/srvant"), mounts) == "ext4"


def test_the_names_of_the_variables_are_those_that_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each name, given a value that no variable accepts where it is not text, is really read."""
    from llmlb_site.lib.config import read_config

    read: set[str] = set()
    original = "llmlb_site.lib.config._Reader._get"

    def spy(self: Any, name: str, default: str) -> str:
        read.add(name)
        return default

    monkeypatch.setattr(original, spy)
    read_config(Path("/tmp"))
    assert read == set(variable_names())
