"""Several gateway processes of one `serve`, on one port: started, watched, renewed and drained by their parent.

Each has a listening socket of its own on the same address (SO_REUSEPORT), so that the kernel shares out connections
evenly. The parent holds the sockets too, and serves nothing: a process that is renewed hands its socket on to its
successor, with whoever is already waiting there. One that dies takes its socket with it, and the others get what comes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final

from llmlb_site.lib.signals import handled
from routing import siblings

log = logging.getLogger("llmlb.serve")

MANAGE: Final = Path(__file__).resolve().parent.parent.parent / "manage.py"
LOOK_SECONDS: Final = 0.1
READY_SECONDS: Final = 120.0
# Beyond the drain time: for closing the listener and writing the history.
GRACE_SECONDS: Final = 15.0
FIRST_BACK_OFF_SECONDS: Final = 1.0
LONGEST_BACK_OFF_SECONDS: Final = 60.0
STEADY_SECONDS: Final = 60.0
READY: Final = b"R"

Sockets = list[socket.socket]


class CannotServe(Exception):
    """A process ended before it was ready for the first time: its own words on standard error say why."""


@dataclass
class Child:
    """One gateway process. `channel` says that it is ready, and tells it that its parent is gone by its end."""

    name: str
    process: subprocess.Popen[bytes]
    sockets: Sockets
    channel: socket.socket
    started: float = field(default_factory=time.monotonic)
    ready: bool = False

    def look(self) -> None:
        if not self.ready:
            with contextlib.suppress(BlockingIOError):
                self.ready = self.channel.recv(1) == READY

    def send_signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)


@dataclass
class Seat:
    """One of the N: who serves there, who is to, and when the next one starts."""

    sockets: Sockets
    child: Child | None = None
    successor: Child | None = None
    back_off: float = FIRST_BACK_OFF_SECONDS
    start_at: float = 0.0


class Processes:
    """Runs `count` processes until a signal. SIGHUP renews them one after another; SIGTERM and SIGINT drain them."""

    def __init__(self, count: int, *, bind: Callable[[], Sockets], options: list[str], drain_seconds: float) -> None:
        self._count = count
        self._bind = bind
        self._options = options
        self._drain_seconds = drain_seconds
        self._directory = Path()
        self._seats: list[Seat] = []
        self._leaving: list[Child] = []
        self._started = 0
        self._to_renew: list[Seat] = []
        self._signals: list[int] = []

    def run(self, on_ready: Callable[[], None]) -> None:
        """Returns when all have ended after a signal.

        Raises: CannotServe, OSError (the address cannot be had).
        """
        with (
            tempfile.TemporaryDirectory(prefix="llmlb-serve-") as directory,
            handled(self._note_signal, signal.SIGINT, signal.SIGTERM, signal.SIGHUP),
        ):
            self._directory = Path(directory)
            try:
                self._start_all()
                if self._until_all_ready():
                    on_ready()
                    self._watch()
                self._drain()
            finally:
                self._end_all()

    # --- start ----------------------------------------------------------------------------------------------------

    def _start_all(self) -> None:
        for _ in range(self._count):
            seat = Seat(self._bind())
            self._seats.append(seat)
            seat.child = self._start(seat.sockets)

    def _start(self, sockets: Sockets) -> Child:
        self._started += 1
        name = str(self._started)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        inherited = [each.fileno() for each in sockets]
        command = [sys.executable, str(MANAGE), "serve_process", "--siblings", str(self._directory), "--name", name]
        command += ["--channel", str(theirs.fileno()), "--sockets", ",".join(map(str, inherited)), *self._options]
        # In a session of its own: Ctrl-C is for the parent, which passes it on.
        process = subprocess.Popen(  # noqa: S603  # our own command
            command, pass_fds=[*inherited, theirs.fileno()], start_new_session=True
        )
        theirs.close()
        log.info("gateway process started", extra={"gateway": name, "gateway_pid": process.pid})
        return Child(name, process, sockets, ours)

    def _until_all_ready(self) -> bool:
        """False where a signal came first. Raises: CannotServe."""
        deadline = time.monotonic() + READY_SECONDS
        children = [seat.child for seat in self._seats if seat.child is not None]
        while not all(child.ready for child in children):
            time.sleep(LOOK_SECONDS)
            if self._signals:
                return False
            for child in children:
                child.look()
                code = child.process.poll()
                if code is not None or time.monotonic() > deadline:
                    raise CannotServe(
                        f"a gateway process {'ended' if code is not None else 'is not ready'} at its start"
                    )
        return True

    # --- watch ----------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        while not any(number in (signal.SIGTERM, signal.SIGINT) for number in self._signals):
            while signal.SIGHUP in self._signals:
                self._signals.remove(signal.SIGHUP)
                self._to_renew = list(self._seats)
                log.info("renewing the gateway processes, one after another")
            for seat in self._seats:
                self._look_at(seat)
            self._renew_next()
            self._forget_ended()
            time.sleep(LOOK_SECONDS)

    def _look_at(self, seat: Seat) -> None:
        if seat.successor is not None:
            self._look_at_successor(seat, seat.successor)
        child = seat.child
        if child is None:
            if time.monotonic() >= seat.start_at:
                seat.sockets = self._bind()
                seat.child = self._start(seat.sockets)
            return
        was_ready = child.ready
        child.look()
        if child.ready and not was_ready:
            self._say_missing()
        if child.process.poll() is not None:
            self._died(seat, child)

    def _died(self, seat: Seat, child: Child) -> None:
        """What waits at its socket is lost with it; but nothing more goes there."""
        if time.monotonic() - child.started > STEADY_SECONDS:
            seat.back_off = FIRST_BACK_OFF_SECONDS
        log.critical(
            "a gateway process died", extra={"gateway_pid": child.process.pid, "code": child.process.returncode,
            "starts_again_in": seat.back_off},
        )  # fmt: skip
        seat.child = None
        if seat.successor is not None:
            seat.child, seat.successor = seat.successor, None
        else:
            _close(seat.sockets)
            seat.start_at = time.monotonic() + seat.back_off
            seat.back_off = min(2 * seat.back_off, LONGEST_BACK_OFF_SECONDS)
        self._buried(child)
        self._say_missing()

    def _say_missing(self) -> None:
        missing = any(seat.child is None or not seat.child.ready for seat in self._seats)
        siblings.say_missing(self._directory, missing=missing)

    # --- renew ----------------------------------------------------------------------------------------------------

    def _renew_next(self) -> None:
        """One at a time: the next one only when the last one's successor serves."""
        if self._to_renew and all(seat.successor is None for seat in self._seats):
            seat = self._to_renew.pop(0)
            if seat.child is not None:
                seat.successor = self._start(seat.sockets)

    def _look_at_successor(self, seat: Seat, successor: Child) -> None:
        successor.look()
        if successor.ready:
            if seat.child is not None:
                seat.child.send_signal(signal.SIGHUP)
                self._leaving.append(seat.child)
            seat.child, seat.successor = successor, None
        elif successor.process.poll() is not None:
            log.critical("the new gateway process does not start; the old ones go on")
            seat.successor = None
            self._to_renew.clear()
            self._buried(successor)

    def _forget_ended(self) -> None:
        for child in [child for child in self._leaving if child.process.poll() is not None]:
            self._leaving.remove(child)
            self._buried(child)

    def _buried(self, child: Child) -> None:
        child.channel.close()
        siblings.bury(self._directory, child.name)

    # --- drain ----------------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        """Pass the signal on, wait until all have left; a second SIGINT hurries them."""
        for seat in self._seats:
            _close(seat.sockets)  # they listen as long as it is right; nobody may be kept waiting here
        deadline = time.monotonic() + self._drain_seconds + GRACE_SECONDS
        while any(child.process.poll() is None for child in self._children()) and time.monotonic() < deadline:
            while self._signals:
                number = self._signals.pop(0)
                for child in self._children():
                    child.send_signal(signal.SIGTERM if number == signal.SIGHUP else number)
            time.sleep(LOOK_SECONDS)

    def _end_all(self) -> None:
        for child in self._children():
            if child.process.poll() is None:
                child.process.kill()
            child.process.wait()
            child.channel.close()
        for seat in self._seats:
            _close(seat.sockets)

    def _children(self) -> list[Child]:
        seated = [child for seat in self._seats for child in (seat.child, seat.successor) if child is not None]
        return [*seated, *self._leaving]

    def _note_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(number)


def follow_parent(channel: socket.socket) -> None:
    """In a child, in a thread of its own: leave when the parent is gone, however it went."""
    while channel.recv(1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _close(sockets: Sockets) -> None:
    for each in sockets:
        each.close()
