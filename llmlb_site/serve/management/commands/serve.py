from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import socket
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.core.checks import ERROR
from django.core.management.base import BaseCommand, CommandError
from django.db import connection, connections

from llmlb_site import __version__
from llmlb_site.serve import gateway
from llmlb_site.serve.checks import deployment_problems
from llmlb_site.serve.instance import AlreadyRunning, Instance, InstanceLock, data_lock_path, port_lock_path
from llmlb_site.serve.listener import CannotListen, base_url, bind, raise_file_limit

log = logging.getLogger("llmlb.serve")

# Of several processes none is the one that does the background work.
_BESIDE: Final = "  Beside it  a Celery worker and a beat must run, or nobody checks the nodes: see docs/scaling.md\n"


class Command(BaseCommand):
    help = "Start llmlb: prepares the data directory and the database on first use, then serves until Ctrl-C."
    requires_system_checks: list[str] = []  # run below, after our own of the command's options

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default=settings.LLMLB.host, help="address to listen on (LLMLB_HOST)")
        parser.add_argument("--port", type=_port, default=settings.LLMLB.port, help="port to listen on (LLMLB_PORT)")
        parser.add_argument(
            "--processes",
            type=int,
            choices=range(1, 65),
            metavar="1-64",
            default=settings.LLMLB.processes,
            help="gateway processes on this port (LLMLB_PROCESSES); more than one need Redis and PostgreSQL",
        )
        parser.add_argument("--server", choices=("uvicorn", "daphne"), default="uvicorn", help="ASGI server")
        parser.add_argument(
            "--no-worker",
            action="store_false",
            dest="worker",
            help="no embedded Celery worker: `celery worker` and `celery beat` run elsewhere (needs LLMLB_REDIS_URL)",
        )

    def handle(
        self, *args: Any, host: str, port: int, processes: int, server: str, worker: bool, **options: Any
    ) -> None:
        self._check(worker=worker, processes=processes)
        from llmlb_site.serve.prepare import prepare_data_dir

        raise_file_limit()
        prepare_data_dir(settings.LLMLB.data_dir)
        with self._only_instance(host, port), self._bound(host, port, shared=processes > 1) as sockets:
            self._prepare()
            if processes > 1:
                self._serve_in_processes(host, port, processes, server)
            else:
                self._serve(sockets, base_url(host, port), server)
        self.stdout.write("llmlb has stopped.")

    def _check(self, *, worker: bool, processes: int) -> None:
        config = dataclasses.replace(settings.LLMLB, processes=processes)
        problems = list(deployment_problems(config, os.environ, worker=worker))
        if any(problem.level >= ERROR for problem in problems):
            raise CommandError("\n".join(f"{each.id}: {each.msg} {each.hint}" for each in problems))
        self.check(display_num_errors=False)

    @contextlib.contextmanager
    def _only_instance(self, host: str, port: int) -> Iterator[None]:
        """Hold the port, and the data directory too unless Redis lets several processes share it."""
        this = Instance.this_process(host=host, port=port)
        with contextlib.ExitStack() as held:
            self._acquire(held, port_lock_path(port), this, "")
            if not settings.LLMLB.scaled:
                reason = f" with the data directory {settings.LLMLB.data_dir}"
                self._acquire(held, data_lock_path(settings.LLMLB.data_dir), this, reason)
            yield

    def _acquire(self, held: contextlib.ExitStack, path: Path, this: Instance, reason: str) -> None:
        lock = InstanceLock(path)
        try:
            lock.acquire(this)
        except AlreadyRunning as error:
            raise CommandError(_already_running(error.instance, this, reason)) from error
        except OSError as error:
            raise CommandError(f"cannot lock {path}: {error.strerror or error}") from error
        held.callback(lock.release)

    @contextlib.contextmanager
    def _bound(self, host: str, port: int, *, shared: bool) -> Iterator[list[socket.socket]]:
        """The address is ours from now on, though nobody listens yet."""
        try:
            sockets = bind(host, port, shared=shared)
        except CannotListen as error:
            raise CommandError(f"{error}") from error
        try:
            yield sockets
        finally:
            for each in sockets:
                each.close()

    def _prepare(self) -> None:
        from llmlb_site.serve.prepare import CannotStart, check_redis, prepare_database, prepare_people

        try:
            if settings.LLMLB.redis_url is not None:
                check_redis(settings.LLMLB.redis_url)
            prepare_database()
        except CannotStart as error:
            raise CommandError(str(error)) from error
        admin = prepare_people()
        if admin is not None and admin.generated_password is not None:
            self.stdout.write(
                "\nFirst start. Sign in as the administrator; you will be asked for a password of your own.\n"
                f"  Username  {admin.username}\n"
                f"  Password  {admin.generated_password}    (shown only this once)\n"
            )

    def _serve(self, sockets: list[socket.socket], url: str, server: str) -> None:
        with contextlib.ExitStack() as beside:
            if not settings.LLMLB.scaled:
                self._start_worker(beside)
            gateway.run(sockets, server=server, listening=lambda: self._say_where(url), stop_beside=beside.close)

    def _serve_in_processes(self, host: str, port: int, count: int, server: str) -> None:
        from llmlb_site.serve.processes import CannotServe, Processes

        connections.close_all()
        connection.close_pool()  # type: ignore[attr-defined]  # PostgreSQL's alone has one; its threads end here
        processes = Processes(
            count,
            bind=lambda: bind(host, port, shared=True),
            options=["--server", server],
            drain_seconds=settings.LLMLB.drain_seconds,
        )
        try:
            processes.run(lambda: self._say_where(base_url(host, port), count))
        except (CannotServe, CannotListen) as error:
            raise CommandError(str(error)) from error

    def _start_worker(self, beside: contextlib.ExitStack) -> None:
        from llmlb_site.celery import app
        from llmlb_site.serve.embedded import EmbeddedCelery

        celery = EmbeddedCelery(app)
        try:
            celery.start()
        except RuntimeError as error:
            raise CommandError(f"{error}") from error
        beside.callback(celery.stop)

    def _say_where(self, url: str, processes: int = 1) -> None:
        in_processes = f" in {processes} processes" if processes > 1 else ""
        self.stdout.write(
            f"\nllmlb {__version__} is ready{in_processes}. Ctrl-C stops it.\n"
            f"  Dashboard  {url}/\n"
            f"  API        {url}/v1    (OpenAI's, with an API key from the dashboard)\n"
            f"  Admin      {url}/admin/\n" + (_BESIDE if settings.LLMLB.scaled else "")
        )
        self.stdout.flush()
        log.info("listening", extra={"url": url, "version": __version__, "pid": os.getpid()})


def _already_running(other: Instance | None, this: Instance, reason: str) -> str:
    if other is None:
        return f"another llmlb is just starting on port {this.port}{reason}."
    option = "" if other.port == settings.LLMLB.port else f" --port {other.port}"
    way_out = (
        "set LLMLB_PORT or --port to another port"
        if not reason
        else "set LLMLB_DATA_DIR to another directory, or LLMLB_REDIS_URL so that processes can share one"
    )
    return (
        f"llmlb is already running on port {other.port}{reason}: pid {other.pid}, since {other.since()}.\n"
        f"Stop it with `python manage.py stop{option}` (or `kill {other.pid}`), or {way_out}."
    )


def _port(text: str) -> int:
    port = int(text)
    if not 1 <= port <= 65535:
        raise ValueError(text)
    return port
