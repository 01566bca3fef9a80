"""What a start does before it listens: the data directory, the database, the first administrator."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import redis
from django.apps import apps
from django.core.management import call_command
from django.db import OperationalError, connection
from django.db.migrations.executor import MigrationExecutor

from access.services import FirstAdmin, ensure_bootstrap_key, ensure_first_admin
from history.services import prepare_days
from routing.state.redis_key import IS_SAME, KEYS, WHY, mark

log = logging.getLogger("llmlb.serve")

PRIVATE_UMASK: Final = 0o077
REDIS_SECONDS: Final = 3
# In a cluster these two keys are of two servers.
_WRITES: Final = "for i = 1, 2 do redis.call('SET', 'llmlb:start:' .. i, 1, 'PX', 1000) end"
MIGRATION_LOCK: Final = 0x6C6C6D6C62  # any number that nothing else locks: "llmlb"


class CannotStart(Exception):
    """Something that this process needs is missing; the message is one line for the operator."""


class AnotherSecretKey(CannotStart):
    """Than that of the processes that run."""


def prepare_data_dir(data_dir: Path) -> None:
    """The directory exists, and whatever this process writes from now on is for its user only."""
    os.umask(PRIVATE_UMASK)
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)


def prepare_database() -> int:
    """Apply what migrations are missing, one process at a time. Returns how many there were.

    Raises:
        CannotStart: the database cannot be reached, or a newer version has migrated it.
    """
    try:
        with _alone():
            applied = _migrate()
            prepare_days()
            return applied
    except OperationalError as error:
        reason = str(error).strip().splitlines()[0]
        raise CannotStart(f"the database cannot be used (LLMLB_DATABASE_URL, LLMLB_DATA_DIR): {reason}") from error


def check_redis(url: str) -> None:
    """It is there, and does what llmlb asks of it: a replica, a cluster, or a user without rights does not.

    Raises:
        CannotStart; AnotherSecretKey, where those that run have another.
    """
    client = redis.Redis.from_url(url, socket_connect_timeout=REDIS_SECONDS, socket_timeout=REDIS_SECONDS)
    try:
        client.ping()
        client.eval(_WRITES, 0)
        client.publish("llmlb:start", "")
        if not client.eval(IS_SAME.text, len(KEYS), *KEYS, mark()):
            raise AnotherSecretKey(WHY)
    except (redis.AuthenticationError, redis.ResponseError) as error:
        raise CannotStart(f"Redis refuses (LLMLB_REDIS_URL): {error}") from error
    except (redis.RedisError, OSError) as error:
        raise CannotStart(f"Redis cannot be reached (LLMLB_REDIS_URL): {type(error).__name__}") from error
    finally:
        client.close()


def refuse_another_key(url: str) -> None:
    """A worker would ask nodes without their keys, and take them for dead. Where Redis is away it waits."""
    try:
        check_redis(url)
    except AnotherSecretKey as error:
        sys.exit(f"llmlb: {error}")
    except CannotStart as error:
        log.warning("%s", error)


def prepare_people() -> FirstAdmin | None:
    """The first administrator, made now if there was none yet, and the bootstrap key; one process at a time."""
    with _alone():
        first_admin = ensure_first_admin()
        ensure_bootstrap_key()
    return first_admin


def _migrate() -> int:
    executor = MigrationExecutor(connection)
    _refuse_newer(executor)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if plan:
        began = time.monotonic()
        call_command("migrate", interactive=False, verbosity=0)
        seconds = round(time.monotonic() - began, 1)
        log.info("database migrated", extra={"migrations": len(plan), "seconds": seconds})
    return len(plan)


def _refuse_newer(executor: MigrationExecutor) -> None:
    ours = {config.label for config in apps.get_app_configs()}
    disk = executor.loader.disk_migrations or {}
    unknown = sorted(
        f"{app}.{name}" for app, name in executor.loader.applied_migrations if app in ours and (app, name) not in disk
    )
    if unknown:
        raise CannotStart(
            f"the database was written by a newer llmlb (it has {unknown[0]}). Start that version, or restore a backup."
        )


@contextmanager
def _alone() -> Iterator[None]:
    """On PostgreSQL several gateways may start at once; SQLite locks by itself."""
    if connection.vendor != "postgresql":
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [MIGRATION_LOCK])
        try:
            yield
        finally:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [MIGRATION_LOCK])
