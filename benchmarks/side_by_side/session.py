"""One benchmark from start to end: what is started, measured in turns, and stopped whatever happens."""

from __future__ import annotations

import contextlib
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Final

from benchmarks import choosing, many_streams, processes
from benchmarks.side_by_side import bodies, gateways, goals, load, machine, rest, runs
from benchmarks.side_by_side.gateways import CannotStart, Gateway, Node
from benchmarks.side_by_side.results import Writer
from benchmarks.side_by_side.runs import Bench, Case
from benchmarks.side_by_side.samples import OURS, Sample

REST_SECONDS: Final = 10.0
QUICK_REST_SECONDS: Final = 4.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for. `deadline` is of `time.monotonic()`: nothing new begins after it."""

    quick: bool
    only: Sequence[str] | None
    connections: Sequence[int] | None
    rows: str | None
    rounds: int | None
    deadline: float

    def wants(self, name: str) -> bool:
        return self.rows is None or self.rows in name

    def cases(self) -> Iterator[Case]:
        for case in runs.QUICK if self.quick else runs.FULL:
            if self.wants(case.name) and (not self.connections or case.connections in self.connections):
                yield replace(case, rounds=self.rounds or case.rounds)

    def gateways(self) -> list[str]:
        if self.only:
            return list(self.only)
        return [name for name in gateways.names() if not (self.quick and name.endswith("-default"))]

    def takes(self, case: Case, gateway: Gateway) -> bool:
        """Default settings are measured in the key rows alone, and what would only queue is not measured."""
        is_extra = gateway.name.endswith("-default") and not case.key and not self.only
        return case.connections <= gateway.most and not is_extra

    def wants_extras(self) -> bool:
        """Whether llmlb's own figures are wanted too, which no peer takes part in."""
        return not self.connections and (self.only is None or OURS in self.only)


class Session:
    """Use as a context manager: at its end nothing that it started runs."""

    def __init__(self, plan: Plan, writer: Writer) -> None:
        self._plan, self._writer = plan, writer
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Session:
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="llmlb-bench-")))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        before = [signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)]
        try:  # whoever presses Ctrl-C twice would leave what was started running
            self._stack.close()
        finally:
            signal.signal(signal.SIGINT, before[0])
            signal.signal(signal.SIGTERM, before[1])

    def run(self) -> None:
        """llmlb's own figures first: they take two minutes, and the rows what is left of the time."""
        if self._plan.wants_extras():
            self._extra(goals.CHOOSING, lambda _: (choosing.worst(), 0))
            if not self._plan.quick:
                self._extra(goals.MANY, many_streams.measure)
                self._extra(goals.PROCESSES, processes.measure)
        if any(self._plan.cases()) or self._plan.wants(goals.AT_REST):
            started = self._stack.enter_context(contextlib.ExitStack())
            self._side_by_side(started)
            started.close()

    def _side_by_side(self, stack: contextlib.ExitStack) -> None:
        node = Node(self._folder, chunks=runs.CHUNKS, interval=runs.INTERVAL)
        stack.callback(node.stop)
        running = list(self._start(node, stack))
        if self._plan.wants(goals.AT_REST):
            for sample in rest.measure(running, seconds=QUICK_REST_SECONDS if self._plan.quick else REST_SECONDS):
                self._writer.add(sample)
        bench = Bench(self._folder, bodies.write(self._folder))
        for gateway in running:
            with contextlib.suppress(load.LoadError):  # it is told again in each row
                bench.warm_up(gateway)
        for gateway in running:
            machine.freeze(gateway.pid)
        for case in self._plan.cases():
            for round in range(case.rounds):
                self._round(bench, case, [node, *running], round)

    def _start(self, node: Node, stack: contextlib.ExitStack) -> Iterator[Gateway]:
        """A gateway that cannot be had or does not start is one line, not the end."""
        for name in self._plan.gateways():
            try:
                gateway = gateways.start(name, node.port, self._folder / name)
            except CannotStart as error:
                self._writer.add_note(f"left out {name}", str(error))
                continue
            stack.callback(gateway.stop)
            self._writer.add_note(f"gateway {name}", f"{gateway.version}; {gateway.source}")
            yield gateway

    def _round(self, bench: Bench, case: Case, running: Sequence[Gateway], round: int) -> None:
        """Each gateway once, one after the other, a new first one each time."""
        shift = round % len(running)
        for gateway in [*running[shift:], *running[:shift]]:
            if not self._plan.takes(case, gateway):
                continue
            if time.monotonic() > self._plan.deadline:
                self._writer.say(f"# out of time: {case.name}, {gateway.name}, round {round + 1}")
                continue
            try:
                self._writer.add((bench.run if isinstance(gateway, Node) else bench.run_alone)(case, gateway, round))
            except load.LoadError as error:
                self._writer.say(f"# no figures: {case.name}, {gateway.name}: {error}")

    def _extra(self, case: str, measure: Callable[[Path], tuple[dict[str, float], int]]) -> None:
        if not self._plan.wants(case) or time.monotonic() > self._plan.deadline:
            return
        try:
            place = self._folder / case.replace(" ", "-")
            place.mkdir()
            figures, errors = measure(place)
        except (CannotStart, load.LoadError, OSError) as error:
            self._writer.add_note(f"left out {case}", str(error))
            return
        self._writer.add(Sample(case, OURS, 0, figures, errors))
