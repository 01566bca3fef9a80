"""What `/metrics` says, in Prometheus' terms. Counters are touched once a request, gauges only when scraped."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Final

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from history.entries import RequestEntry
from history.recorder import Recorder
from routing.core.table import RoutingTable
from routing.state.base import State

BUCKETS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Durations(msgspec.Struct):
    """A histogram: how many fell into each of `BUCKETS` (the last: beyond all of them), and their sum in seconds."""

    counts: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds

    def add(self, other: Durations) -> None:
        self.counts = [ours + theirs for ours, theirs in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    @property
    def buckets(self) -> list[tuple[str, float]]:
        """As Prometheus wants them: cumulative, the last one of all."""
        bounds = [*(str(float(bound)) for bound in BUCKETS), "+Inf"]
        return list(zip(bounds, map(float, accumulate(self.counts)), strict=True))


class Tally(msgspec.Struct):
    """What was counted since the start: plain figures, so that those of several processes can be added up.

    `requests` by kind and outcome, `limit_refusals` by kind and limit, `durations` by kind, `cloud_requests` by
    provider and status, the rest by provider.
    """

    requests: dict[str, dict[str, int]] = {}
    limit_refusals: dict[str, dict[str, int]] = {}
    durations: dict[str, Durations] = {}
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cloud_requests: dict[str, dict[str, int]] = {}
    cloud_durations: dict[str, Durations] = {}

    def add(self, other: Tally) -> None:
        """Count what another process counted, too."""
        for ours, theirs in (
            (self.requests, other.requests),
            (self.limit_refusals, other.limit_refusals),
            (self.cloud_requests, other.cloud_requests),
        ):
            for name, counts in theirs.items():
                known = ours.setdefault(name, {})
                for label, count in counts.items():
                    known[label] = known.get(label, 0) + count
        for mine, others in ((self.durations, other.durations), (self.cloud_durations, other.cloud_durations)):
            for name, durations in others.items():
                mine.setdefault(name, Durations()).add(durations)
        self.prompt_tokens += other.prompt_tokens
        self.completion_tokens += other.completion_tokens


class Figures(msgspec.Struct):
    """What one process has to say at this moment. Requests per node id; history rows not yet written, and lost."""

    tally: Tally = msgspec.field(default_factory=Tally)
    in_flight: dict[int, int] = {}
    waiting: int = 0
    backlog: int = 0
    dropped: int = 0
    tasks: int = 0

    def add(self, other: Figures) -> None:
        self.tally.add(other.tally)
        for node_id, count in other.in_flight.items():
            self.in_flight[node_id] = self.in_flight.get(node_id, 0) + count
        self.waiting += other.waiting
        self.backlog += other.backlog
        self.dropped += other.dropped
        self.tasks += other.tasks


class Metrics:
    """The metrics of one gateway process.

    prometheus-client's own counters take a lock for each step, which is as much as all of this; it writes the text.
    """

    def __init__(self) -> None:
        self.tally = Tally()

    def observe(self, entry: RequestEntry) -> None:
        """One inference request, however it ended."""
        tally, kind = self.tally, entry.kind
        durations = tally.durations.get(kind)
        if durations is None:
            durations = tally.durations[kind] = Durations()
            tally.requests[kind] = {}
        outcomes = tally.requests[kind]
        outcomes[entry.outcome] = outcomes.get(entry.outcome, 0) + 1
        durations.observe(entry.duration_ms / 1000)
        if entry.total_tokens:
            tally.prompt_tokens += entry.prompt_tokens or 0
            tally.completion_tokens += entry.completion_tokens or 0

    def observe_limit(self, kind: str, limit: str) -> None:
        """One request that was refused because its key has reached a limit."""
        limits = self.tally.limit_refusals.setdefault(kind, {})
        limits[limit] = limits.get(limit, 0) + 1

    def observe_cloud(self, provider: str, status: int, seconds: float) -> None:
        """One request that a cloud provider was asked. `status` is the client's."""
        statuses = self.tally.cloud_requests.setdefault(provider, {})
        statuses[str(status)] = statuses.get(str(status), 0) + 1
        self.tally.cloud_durations.setdefault(provider, Durations()).observe(seconds)

    def figures(self, state: State, recorder: Recorder) -> Figures:
        """Of this process at this moment. The tally in it is the one that goes on counting."""
        health = recorder.health()
        return Figures(
            self.tally, dict(state.in_flight_here()), state.waiting_here(), health.backlog, health.rows_dropped
        )


def cloud_text(figures: Figures) -> bytes:
    """The part about cloud providers alone."""
    return _text(_CloudCounters(figures.tally))


def text(figures: Figures, table: RoutingTable) -> bytes:
    """The exposition text."""
    return _text(_Counters(figures.tally)) + cloud_text(figures) + _text(_Gauges(figures, table))


def together(*all_figures: Figures) -> Figures:
    """The sum; none of them is changed."""
    total = Figures()
    for figures in all_figures:
        total.add(figures)
    return total


def _text(collector: Collector) -> bytes:
    registry = CollectorRegistry()
    registry.register(collector)
    return generate_latest(registry)


class _Counters(Collector):
    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def collect(self) -> Iterator[Metric]:
        tally = self._tally
        labels = ["kind", "outcome"]
        yield _counted("llmlb_requests", "Requests by kind and outcome.", labels, tally.requests)
        said = "Requests refused for a limit of their key."
        yield _counted("llmlb_limit_refusals", said, ["kind", "limit"], tally.limit_refusals)
        said = "From first byte in to last byte out."
        yield _measured("llmlb_request_duration_seconds", said, "kind", tally.durations)
        tokens = CounterMetricFamily("llmlb_tokens", "Tokens by kind of token.", labels=["type"])
        tokens.add_metric(["prompt"], tally.prompt_tokens)
        tokens.add_metric(["completion"], tally.completion_tokens)
        yield tokens


class _CloudCounters(Collector):
    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def collect(self) -> Iterator[Metric]:
        labels = ["provider", "status"]
        said = "Requests to cloud providers, by status."
        yield _counted("cloud_requests", said, labels, self._tally.cloud_requests)
        said = "Of requests to cloud providers, from first byte in to last byte out."
        yield _measured("cloud_request_latency_seconds", said, "provider", self._tally.cloud_durations)


def _counted(name: str, text: str, labels: list[str], counts: Mapping[str, Mapping[str, int]]) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for first, seconds in counts.items():
        for second, count in seconds.items():
            family.add_metric([first, second], count)
    return family


def _measured(name: str, text: str, label: str, durations: Mapping[str, Durations]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=[label])
    for value, measured in durations.items():
        family.add_metric([value], measured.buckets, measured.total)
    return family


class _Gauges(Collector):
    def __init__(self, figures: Figures, table: RoutingTable) -> None:
        self._figures = figures
        self._table = table

    def collect(self) -> Iterator[Metric]:
        table, figures = self._table, self._figures
        yield GaugeMetricFamily("llmlb_queue_size", "Requests waiting for a node.", figures.waiting)
        in_flight = GaugeMetricFamily("llmlb_in_flight", "Requests on a node.", labels=["node"])
        up = GaugeMetricFamily("llmlb_node_routable", "1 while the node takes new requests.", labels=["node"])
        for node in table.nodes.values():
            in_flight.add_metric([node.name], figures.in_flight.get(node.id, 0))
            up.add_metric([node.name], int(node.routable))
        yield in_flight
        yield up
        yield GaugeMetricFamily("llmlb_routable_models", "Models that a node can serve now.", len(table.holders))
        yield GaugeMetricFamily("llmlb_history_backlog", "History rows not yet written.", figures.backlog)
        yield GaugeMetricFamily("llmlb_history_dropped", "History rows lost since the start.", figures.dropped)
        yield GaugeMetricFamily("llmlb_tasks", "Tasks on the event loops.", figures.tasks)
