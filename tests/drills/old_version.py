"""An installation as an older llmlb left it: `python -m tests.drills.old_version 0.1.0 ROWS NODE_URL KEY`.

Runs as a process of its own with the installation's environment: migrates to where that release's migrations ended,
and fills its tables through the models and columns of then. Add each release to `RELEASES` when it is made, and the
migrations that it brought to `RELEASED`.
"""

from __future__ import annotations

import sys
import zlib
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

# The last migration of each app in each release.
RELEASES: Final[dict[str, dict[str, str]]] = {
    "0.1.0": {
        "lib": "0001_initial",
        "access": "0001_initial",
        "nodes": "0001_initial",
        "models_catalog": "0001_initial",
        "history": "0001_initial",
    },
}
# The SHA-256 of each migration that a release has. They never change again: a database out there has gone through them.
RELEASED: Final[dict[str, str]] = {
    "llmlb_site/lib/migrations/0001_initial.py": "9ed15ee48f226537f7e3dd75fdb73311fb8b65f068e20a877a65e0e573ecf517",
    "access/migrations/0001_initial.py": "ef8042d8467b6cccdbf7f82303925299740844fc332c6081fedbc34352d14697",
    "nodes/migrations/0001_initial.py": "4ec3dd7b92973cc061f0a13dc69a08b903f7fd2b62fbf222256ce24439cebbc8",
    "models_catalog/migrations/0001_initial.py": "56e6bfb5ba2e0748cf91de7d13f510e518e1998c846a2ddabfd7623bd718c86e",
    "history/migrations/0001_initial.py": "57fb6cb10713e800d44667d63126006a36339af41e7c755a83c327cb6e54ba75",
}
MODEL: Final = "model-a"
DAYS: Final = 5
BODIES: Final = 20
ASKED: Final = b'{"model": "model-a", "messages": [{"role": "user", "content": "What is the capital of Japan?"}]}'
ANSWERED: Final = b'{"choices": [{"message": {"role": "assistant", "content": "Tokyo."}}]}'

_REQUESTS: Final = """
    INSERT INTO history_requestrecord (request_id, started_at, kind, model, served_model, node_id, node_name,
        api_key_id, api_key_name, client_ip, outcome, status, error_code, error_message, stream, poison, attempt_count,
        duration_ms, queue_ms, prompt_tokens, completion_tokens, total_tokens, token_source, bytes_in, bytes_out)
    WITH RECURSIVE series (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM series WHERE n < %s)
    SELECT 'day-' || %s || '-' || n, %s, 'chat', %s, %s, 1, 'node-1', 1, 'a key', '10.0.0.1', 'success', 200, '', '',
        FALSE, FALSE, 1, 100, 0, 7, 3, 10, 'usage', 100, 100
    FROM series
"""
_ATTEMPTS: Final = """
    INSERT INTO history_requestattempt (record_id, number, node_id, node_name, selection_reason, status, error,
        excluded, duration_ms)
    SELECT id, 1, 1, 'node-1', 'least_busy', 200, '', FALSE, 100 FROM history_requestrecord
"""


def make(release: str, rows: int, node_url: str, key: str) -> None:
    from django.db import connection
    from django.db.migrations.executor import MigrationExecutor

    targets = list(RELEASES[release].items())
    executor = MigrationExecutor(connection)
    others = [leaf for leaf in executor.loader.graph.leaf_nodes() if leaf[0] not in RELEASES[release]]
    executor.migrate([*targets, *others])
    apps = MigrationExecutor(connection).loader.project_state([*targets, *others]).apps
    _add_people(apps, key)
    node = apps.get_model("nodes", "Node").objects.create(name="node-1", base_url=node_url, api_key="the node's key")
    apps.get_model("nodes", "NodeModel").objects.create(node=node, model_id=MODEL)
    _add_history(apps, connection, rows)


def _add_people(apps: Any, text: str) -> None:
    from access import keys
    from access.permissions import Permission

    owner = apps.get_model("access", "User").objects.create(
        username="hana", role="administrator", is_staff=True, is_superuser=True, password="!"
    )
    parts = keys.split(text)
    assert parts is not None
    apps.get_model("access", "ApiKey").objects.create(
        name="of old", owner=owner, public_id=parts[0], digest=keys.digest(parts[1]), permissions=Permission.values
    )


def _add_history(apps: Any, connection: Any, rows: int) -> None:
    from llmlb_site.lib.crypto import encrypt_bytes

    now = datetime.now(UTC)
    with connection.cursor() as cursor:
        for day in range(DAYS, 0, -1):
            moment = connection.ops.adapt_datetimefield_value(now - timedelta(days=day))
            cursor.execute(_REQUESTS, [rows // DAYS, day, moment, MODEL, MODEL])
            apps.get_model("history", "TokenTotal").objects.create(
                day=(now - timedelta(days=day)).date(), node_id=1, model=MODEL, requests=rows // DAYS, prompt_tokens=7
            )
        cursor.execute(_ATTEMPTS)
    sealed = encrypt_bytes(b"\1" + zlib.compress(msgspec.msgpack.encode((ASKED, ANSWERED)), 1), "history.payload")
    payload = apps.get_model("history", "RequestPayload")
    payload.objects.bulk_create(
        payload(record_id=number, encrypted=True, bodies=sealed) for number in range(1, BODIES + 1)
    )


if __name__ == "__main__":
    import django

    django.setup()
    make(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4])
