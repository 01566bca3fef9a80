"""What is measured, and one run of it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.side_by_side import load, machine, streams
from benchmarks.side_by_side.gateways import Gateway, Ours
from benchmarks.side_by_side.kept import Kept
from benchmarks.side_by_side.samples import Sample

STREAMS: Final = 64
CHUNKS: Final = 50
INTERVAL: Final = 0.02
STREAM_SECONDS: Final = 45
BACKLOG_SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True)
class Case:
    """`key` rows are compared, in more rounds, and take the peers in their default settings too.

    `seconds` are how long it takes, of streams how long it may take (wrk wants whole ones). `turns` is how often each
    of the streams comes; 0 for a case of whole answers.
    """

    name: str
    body: str
    connections: int
    rounds: int
    seconds: int
    key: bool = False
    turns: int = 0

    @property
    def is_stream(self) -> bool:
        return self.turns > 0


# What matters most comes first: a machine that is too slow for all of it runs out of time in the later rows.
FULL: Final = (
    Case("1 KB, c=16", "1 KB", 16, 7, 2, key=True),
    Case("stream, c=64", "stream", STREAMS, 5, STREAM_SECONDS, key=True, turns=3),
    Case("1 KB, c=1", "1 KB", 1, 5, 2),
    Case("1 KB, c=64", "1 KB", 64, 3, 2),
    Case("100 KB, c=16", "100 KB", 16, 3, 3),
    Case("5 MB, c=4", "5 MB", 4, 3, 3),
    Case("1 KB, c=256", "1 KB", 256, 3, 2),
    Case("1 KB, c=1000", "1 KB", 1000, 3, 3),
)
QUICK: Final = (
    Case("1 KB, c=16", "1 KB", 16, 3, 2, key=True),
    Case("stream, c=64", "stream", STREAMS, 2, STREAM_SECONDS, key=True, turns=1),
    Case("1 KB, c=1", "1 KB", 1, 2, 1),
    Case("100 KB, c=16", "100 KB", 16, 1, 1),
)


class Bench:
    """Where the runs take place: bodies and script as files, made once."""

    def __init__(self, folder: Path, paths: dict[str, Path]) -> None:
        self._paths, self._script = paths, folder / "load.lua"
        self._script.write_text(load.SCRIPT)

    def warm_up(self, gateway: Gateway) -> None:
        """So that no first round pays for connections, caches and code that others find ready."""
        self._requests(gateway, Case("warm-up", "1 KB", 16, 1, 1))
        machine.wait_until_quiet(gateway.pid, seconds=BACKLOG_SECONDS)

    def run_alone(self, case: Case, gateway: Gateway, round: int) -> Sample:
        """`run`, of one that was frozen and is again afterwards. Raises LoadError."""
        machine.thaw(gateway.pid)
        try:
            machine.wait_until_quiet(gateway.pid, seconds=BACKLOG_SECONDS)
            return self.run(case, gateway, round)
        finally:
            machine.freeze(gateway.pid)

    def run(self, case: Case, gateway: Gateway, round: int) -> Sample:
        """Raises LoadError. The CPU counted is the tree's until it has worked off what the run left behind."""
        kept = Kept(gateway.database) if isinstance(gateway, Ours) and gateway.database.exists() else None
        cpu, busy, began = machine.cpu_seconds(gateway.pid), machine.busy_seconds(), time.monotonic()
        own = machine.cpu_seconds(os.getpid())
        figures, units, errors = (
            self._stream(case, gateway) if case.is_stream else self._requests(case=case, gateway=gateway)
        )
        wall = time.monotonic() - began
        others = machine.busy_seconds() - busy - (machine.cpu_seconds(os.getpid()) - own)
        quiet = machine.wait_until_quiet(gateway.pid, seconds=BACKLOG_SECONDS)
        used = machine.cpu_seconds(gateway.pid) - cpu
        if used < 0:
            raise load.LoadError("it has ended")
        figures |= {
            "cpu_us": used / units * 1e6 if units else float("nan"),
            "pss_mb": machine.resident_mb(gateway.pid),
            "foreign_cores": max(0.0, others / wall),
        }
        if kept is not None:
            figures |= kept.percent(case.connections * case.turns if case.is_stream else units)
        return Sample(case.name, gateway.name, round, figures, errors + (not quiet))

    def _requests(self, gateway: Gateway, case: Case) -> tuple[dict[str, float], int, int]:
        seen = load.requests(
            gateway.url,
            gateway.key,
            self._paths[case.body],
            self._script,
            connections=case.connections,
            seconds=case.seconds,
        )
        figures = {
            "requests": float(seen.requests),
            "per_second": seen.requests / seen.seconds,
            "p50_ms": seen.p50_ms,
            "p99_ms": seen.p99_ms,
            "max_ms": seen.max_ms,
        }
        return figures, seen.requests, seen.errors

    def _stream(self, case: Case, gateway: Gateway) -> tuple[dict[str, float], int, int]:
        seen = streams.follow(
            gateway.url,
            gateway.key,
            self._paths[case.body].read_bytes(),
            count=case.connections,
            chunks=CHUNKS,
            turns=case.turns,
            seconds=case.seconds,
            spread=CHUNKS * INTERVAL,
        )
        figures = streams.figures(seen, expected=case.connections * case.turns * CHUNKS)
        return figures, seen.chunks, seen.errors
