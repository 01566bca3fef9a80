"""System checks of the mix: what cannot work together is refused at the start, with an id and a way out."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.core import checks

from llmlb_site.lib.config import Config

NETWORK_FILE_SYSTEMS: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "glusterfs", "ceph"}
)
# Read by other parts than `Config`: the test suite and the demo.
OTHER_PREFIXES: Final = ("LLMLB_TEST_", "LLMLB_URL", "LLMLB_API_KEY")  # the last two: of `manage.py llmlb`

# The name of each variable that `Config` reads, where it is not LLMLB_ and the field's name.
VARIABLE_NAMES: Final[Mapping[str, str]] = {
    "queue_timeout": "LLMLB_QUEUE_TIMEOUT_SECS",
    "inference_timeout": "LLMLB_INFERENCE_TIMEOUT_SECS",
    "client_timeout": "LLMLB_CLIENT_TIMEOUT_SECS",
    "exclusion_probe_max": "LLMLB_EXCLUSION_PROBE_SECS",
    "max_multipart_bytes": "LLMLB_MAX_MULTIPART_BYTES",
    "history_retention_days": "LLMLB_REQUEST_HISTORY_RETENTION_DAYS",
}


def variable_names() -> tuple[str, ...]:
    """Every variable that `Config` reads, in its order."""
    return tuple(VARIABLE_NAMES.get(field.name, f"LLMLB_{field.name.upper()}") for field in fields(Config))


def register_checks() -> None:
    checks.register(check_deployment)


def check_deployment(app_configs: Any = None, **kwargs: Any) -> list[checks.CheckMessage]:
    return list(deployment_problems(settings.LLMLB, os.environ))


def deployment_problems(
    config: Config, environ: Mapping[str, str], *, worker: bool = True
) -> Iterator[checks.CheckMessage]:
    """Everything wrong with this mix of settings. `worker`: False for `serve --no-worker`."""
    yield from _processes(config)
    yield from _worker(config, worker=worker)
    yield from _database(config)
    yield from _unknown_variables(environ)


def _processes(config: Config) -> Iterator[checks.CheckMessage]:
    if config.processes == 1:
        return
    if not config.scaled:
        yield checks.Error(
            f"LLMLB_PROCESSES={config.processes} without LLMLB_REDIS_URL: processes would not see each other's load.",
            hint="Set LLMLB_REDIS_URL and a postgres:// LLMLB_DATABASE_URL, or leave LLMLB_PROCESSES at 1.",
            id="llmlb.serve.E001",
        )
    elif not _on_postgresql(config):
        yield checks.Error(
            f"LLMLB_PROCESSES={config.processes} with SQLite, which one process at a time writes to.",
            hint="Set a postgres:// LLMLB_DATABASE_URL, or leave LLMLB_PROCESSES at 1.",
            id="llmlb.serve.E003",
        )


def _worker(config: Config, *, worker: bool) -> Iterator[checks.CheckMessage]:
    if not worker and not config.scaled:
        yield checks.Error(
            "--no-worker without LLMLB_REDIS_URL: nobody would poll the nodes.",
            hint="Leave --no-worker out, or set LLMLB_REDIS_URL and run `celery worker` and `celery beat`.",
            id="llmlb.serve.E002",
        )


def _database(config: Config) -> Iterator[checks.CheckMessage]:
    if _on_postgresql(config):
        return
    if config.scaled:
        yield checks.Warning(
            "LLMLB_REDIS_URL with SQLite: every process must run on this host and share LLMLB_DATA_DIR.",
            hint="Set a postgres:// LLMLB_DATABASE_URL to use several hosts.",
            id="llmlb.serve.W001",
        )
    file_system = file_system_of(config.data_dir)
    if file_system in NETWORK_FILE_SYSTEMS:
        yield checks.Warning(
            f"The SQLite database is on a network file system ({file_system}), where its locks are not reliable.",
            hint="Put LLMLB_DATA_DIR on a local disk, or set a postgres:// LLMLB_DATABASE_URL.",
            id="llmlb.serve.W002",
        )


def _on_postgresql(config: Config) -> bool:
    return (config.database_url or "sqlite").startswith("postgres")


def _unknown_variables(environ: Mapping[str, str]) -> Iterator[checks.CheckMessage]:
    known = set(variable_names())
    for name in sorted(environ):
        plain = name.removesuffix("_FILE")
        if not name.startswith("LLMLB_") or name.startswith(OTHER_PREFIXES) or plain in known:
            continue
        nearest = difflib.get_close_matches(plain, known, n=1)
        yield checks.Warning(
            f"{name} is set, but there is no such setting.",
            hint=f"Did you mean {nearest[0]}?" if nearest else "All settings are in docs/settings.md.",
            id="llmlb.serve.W003",
        )


def file_system_of(path: Path, mounts: Iterable[str] | None = None) -> str:
    """The type of the file system that `path` is on, from /proc/mounts; empty where that is not to be had."""
    best, kind = "", ""
    for line in _mounts() if mounts is None else mounts:
        _, mount_point, found, *_ = line.split(" ")
        inside = path == Path(mount_point) or Path(mount_point) in path.parents
        if inside and len(mount_point) >= len(best):
            best, kind = mount_point, found
    return kind


def _mounts() -> list[str]:
    try:
        return Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return []
