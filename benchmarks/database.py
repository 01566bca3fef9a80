"""A database of its own for a benchmark inside this process: a fresh SQLite file, or one on a PostgreSQL server."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator

import psycopg

from scripts import services


@contextlib.contextmanager
def fresh(*, postgresql: bool) -> Iterator[str]:
    """Django set up, with all tables and no rows; gone at the end. The server is found or started as for the tests.

    Yields: which database it is, with its version.

    Raises:
        services.Unavailable: there is no PostgreSQL.
    """
    with contextlib.ExitStack() as stack:
        os.environ["LLMLB_DATA_DIR"] = stack.enter_context(tempfile.TemporaryDirectory(prefix="llmlb-bench-"))
        os.environ["LLMLB_DATABASE_URL"] = ""  # not that of an installation beside this one
        if postgresql:
            server = stack.enter_context(services.postgresql())
            os.environ["LLMLB_DATABASE_URL"] = stack.enter_context(on_server(server, f"llmlb_bench_{os.getpid()}"))
        os.environ["DJANGO_SETTINGS_MODULE"] = "llmlb_site.settings"
        import django
        from django.core.management import call_command
        from django.db import connection, connections

        django.setup()
        stack.callback(connections.close_all)
        call_command("migrate", verbosity=0)
        yield f"{connection.display_name} {'.'.join(map(str, connection.get_database_version()))}"


@contextlib.contextmanager
def on_server(server: str, name: str) -> Iterator[str]:
    """An empty database on this server, gone at the end. Yields: its URL."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    try:
        yield f"{server.rpartition('/')[0]}/{name}"
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())
