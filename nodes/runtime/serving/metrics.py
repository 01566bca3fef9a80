"""The node's own Prometheus metrics. https://prometheus.io/docs/instrumenting/exposition_formats/"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from nodes.runtime.backend import Device

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Figures(Collector):
    """What is so at the moment of asking; nothing is counted for it."""

    def __init__(self, gauges: Callable[[], dict[str, tuple[str, float]]], devices: Callable[[], Iterable[Device]]):
        self._gauges = gauges
        self._devices = devices

    def collect(self) -> Iterable[Metric]:
        for name, (text, value) in self._gauges().items():
            kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            yield kind(name, text, value=value)
        yield from self._of_devices()

    def _of_devices(self) -> Iterable[Metric]:
        used = GaugeMetricFamily("llmlb_node_gpu_memory_used_bytes", "Of each GPU.", labels=["gpu"])
        total = GaugeMetricFamily("llmlb_node_gpu_memory_total_bytes", "Of each GPU.", labels=["gpu"])
        busy = GaugeMetricFamily("llmlb_node_gpu_usage_percent", "Of each GPU.", labels=["gpu"])
        for device in self._devices():
            for family, value in ((used, device.memory_used), (total, device.memory_total), (busy, device.utilisation)):
                if value is not None:
                    family.add_metric([str(device.index)], value)
        yield from (used, total, busy)


class Metrics:
    """Counters of this node."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no annotation for it
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "llmlb_node_requests", "Inference requests, by how they ended.", ["path", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "llmlb_node_request_seconds", "How long they took.", ["path"], registry=self.registry,
            buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
        )  # fmt: skip

    def observe(self, path: str, status: int, seconds: float) -> None:
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self.registry)
