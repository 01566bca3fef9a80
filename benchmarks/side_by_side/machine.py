"""What runs on this machine: processes on cores of their own, what they cost, and the certain end of them all."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import signal
import subprocess
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Final

TICKS: Final = os.sysconf("SC_CLK_TCK")
_LIBC: Final = ctypes.CDLL(None)
STOP_SECONDS: Final = 10.0
# A gateway that uses less than this share of a core has nothing left to do but its clockwork.
QUIET_SHARE: Final = 0.12
QUIET_PROBE_SECONDS: Final = 0.25
# The gateway has a core to itself; load and node have the others. The same one where there is only one.
ALL_CORES: Final = sorted(os.sched_getaffinity(0))
GATEWAY_CORE: Final = {ALL_CORES[0]}
LOAD_CORES: Final = set(ALL_CORES[1:]) or GATEWAY_CORE


@contextlib.contextmanager
def pinned(to: set[int]) -> Iterator[None]:
    """What is started inside runs on these cores, with everything that it starts in turn."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, to)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def long_turns() -> Iterator[None]:
    """What is started inside keeps its core as long as the kernel lets it (sched(7), SCHED_BATCH)."""
    before = os.sched_getscheduler(0)
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        yield
    finally:
        os.sched_setscheduler(0, before, os.sched_param(0))


class Process:
    """A program and what it started, in a process group of its own; its output goes to a file."""

    def __init__(self, argv: Sequence[str], log: Path, *, on: set[int], environment: Mapping[str, str] | None = None):
        self.log = log
        with log.open("ab") as output, pinned(on):
            self._process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if environment is None else dict(environment),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1][:200] if lines else "it said nothing"

    def stop(self) -> None:
        """SIGTERM, and SIGKILL to what is left of the group."""
        thaw(self.pid)
        for number, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, STOP_SECONDS)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)


def freeze(pid: int) -> None:
    """Stop the tree where it is: it waits, and takes nothing from those that are measured now."""
    _signal_tree(pid, signal.SIGSTOP)


def thaw(pid: int) -> None:
    _signal_tree(pid, signal.SIGCONT)


def _signal_tree(pid: int, number: signal.Signals) -> None:
    for one in tree(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, number)


def tree(pid: int) -> list[int]:
    """The process and everything below it."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
    found = [pid]
    for one in found:
        found += parents.get(one, [])
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of the tree so far, with that of threads and children that have ended.

    Of what runs it is exact to the nanosecond; children that have ended are counted in ticks of 10 ms.
    """
    total = 0.0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            total += time.clock_gettime(_cpu_clock(one)) + ended_children_seconds(one)
    return total


def ended_children_seconds(pid: int) -> float:
    """User and system time of those that the process has waited for."""
    return sum(int(field) for field in _stat(pid)[13:15]) / TICKS


def _cpu_clock(pid: int) -> int:
    """The clock that counts the CPU time of all threads of a process, also of another user's (POSIX)."""
    clock = ctypes.c_int()
    error = _LIBC.clock_getcpuclockid(pid, ctypes.byref(clock))
    if error:
        raise OSError(error, os.strerror(error))
    return clock.value


def resident_mb(pid: int) -> float:
    """Memory of the tree in MB; what processes share counts once (PSS)."""
    total = 0
    for one in tree(pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total / 1024


def forget_peak(pid: int) -> None:
    """From now on `peak_mb` tells of what comes."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_mb(pid: int) -> float:
    """The most memory that the process itself has had at once, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def busy_seconds() -> float:
    """CPU time that the whole machine has spent on anything."""
    user, nice, system, _idle, _wait, irq, soft = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8]
    return sum(map(int, (user, nice, system, irq, soft))) / TICKS


def wait_until_quiet(pid: int, *, seconds: float) -> bool:
    """Let the tree work off its backlog. Returns: whether it did in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        before = cpu_seconds(pid)
        time.sleep(QUIET_PROBE_SECONDS)
        if cpu_seconds(pid) - before <= QUIET_SHARE * QUIET_PROBE_SECONDS:
            return True
    return False


def end_as_on_ctrl_c() -> None:
    """SIGTERM ends this program as Ctrl-C does: everything that it started is stopped."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def describe() -> dict[str, str]:
    """What must be known to compare figures with another machine's."""
    model = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "unknown"
    )
    memory = next((int(line.split()[1]) // 1024**2 for line in _lines("/proc/meminfo") if "MemTotal" in line), 0)
    return {
        "cores": f"{len(ALL_CORES)} of {model}",
        "memory": f"{memory} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_version()}{_optimised()}",
    }


def _optimised() -> str:
    """A Python built so is faster. Nothing where it is not known: Debian's is, and does not say so."""
    arguments = sysconfig.get_config_var("CONFIG_ARGS") or ""
    return ", built with --enable-optimizations" if "--enable-optimizations" in arguments else ""


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _stat(pid: int) -> list[str]:
    """The fields after the name: state, parent … user, system, children's user, children's system at 11 to 14."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
