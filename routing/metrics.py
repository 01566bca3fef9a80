"""What `/metrics` says, in Prometheus' terms. Counters are touched once a request, gauges only when scraped."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from history.recorder import Recorder
from routing.state.base import State

BUCKETS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """The metrics of one gateway process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._cloud = CollectorRegistry()
        self._requests = Counter(
            "llmlb_requests", "Requests by kind and outcome.", ["kind", "outcome"], registry=self.registry
        )
        self._duration = Histogram(
            "llmlb_request_duration_seconds",
            "From first byte in to last byte out.",
            ["kind"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._cloud_requests = Counter(
            "cloud_requests",
            "Requests to cloud providers, by status.",
            ["provider", "status"],
            registry=self._cloud,
        )
        self._cloud_latency = Histogram(
            "cloud_request_latency_seconds",
            "Of requests to cloud providers, from first byte in to last byte out.",
            ["provider"],
            buckets=BUCKETS,
            registry=self._cloud,
        )
        tokens = Counter("llmlb_tokens", "Tokens by kind of token.", ["type"], registry=self.registry)
        self._prompt, self._completion = tokens.labels("prompt"), tokens.labels("completion")
        # Looking a labelled child up costs more than counting.
        self._bound = cache(lambda kind, outcome: (self._requests.labels(kind, outcome), self._duration.labels(kind)))

    def observe(self, kind: str, outcome: str, seconds: float, prompt: int | None, completion: int | None) -> None:
        count, duration = self._bound(kind, outcome)
        count.inc()
        duration.observe(seconds)
        if prompt:
            self._prompt.inc(prompt)
        if completion:
            self._completion.inc(completion)

    def observe_cloud(self, provider: str, status: int, seconds: float) -> None:
        """One request that a cloud provider was asked. `status` is the client's."""
        self._cloud_requests.labels(provider, str(status)).inc()
        self._cloud_latency.labels(provider).observe(seconds)

    def cloud_text(self) -> bytes:
        """The part about cloud providers alone."""
        return generate_latest(self._cloud)

    def text(self, state: State, recorder: Recorder) -> bytes:
        """The exposition text, with the gauges of this moment."""
        moment = CollectorRegistry()
        moment.register(_Gauges(state, recorder))
        return generate_latest(self.registry) + self.cloud_text() + generate_latest(moment)


class _Gauges(Collector):
    def __init__(self, state: State, recorder: Recorder) -> None:
        self._state = state
        self._recorder = recorder

    def collect(self) -> Iterator[Metric]:
        table, live = self._state.table, self._state.live
        waiting = self._state.stats().waiting
        yield GaugeMetricFamily("llmlb_queue_size", "Requests waiting for a node.", waiting)
        in_flight = GaugeMetricFamily("llmlb_in_flight", "Requests on a node.", labels=["node"])
        up = GaugeMetricFamily("llmlb_node_routable", "1 while the node takes new requests.", labels=["node"])
        for node in table.nodes.values():
            in_flight.add_metric([node.name], live.in_flight.get(node.id, 0))
            up.add_metric([node.name], int(node.routable))
        yield in_flight
        yield up
        yield GaugeMetricFamily("llmlb_routable_models", "Models that a node can serve now.", len(table.holders))
        health = self._recorder.health()
        yield GaugeMetricFamily("llmlb_history_backlog", "History rows not yet written.", health.backlog)
        yield GaugeMetricFamily("llmlb_history_dropped", "History rows lost since the start.", health.rows_dropped)
