"""What the gateway costs, everything on: keys, routing, usage, history. `python -m benchmarks.gateway [SECONDS]`

Prints CPU per request of the product's process, latency added to a call, and how 500 streams of 100 chunks come
through. The product runs on one core, node and client on the other; all of it talks over loopback.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import uvloop

from benchmarks import client
from benchmarks.client import Figures, percentile
from tests.support.product import Product, free_port, wait_until

BODY = b'{"model":"bench","messages":[{"role":"user","content":"' + b"word " * 180 + b'"}]}'
STREAM = BODY[:-1] + b',"stream":true}'
# 5 000 chunks a second: as much as node and client can do on one core without being what is measured.
STREAMS, CHUNKS, INTERVAL = 500, 100, 0.1


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    with running_product() as (product, node_port):
        pid = product.process.pid
        print(f"memory after start: {resident_mb(pid):.0f} MB")
        asked = client.request(product.key, BODY)
        direct = run(client.closed_loop(node_port, asked, connections=1, seconds=2))
        print("connections  req/s  CPU µs/req  p50 ms  p99 ms  errors")
        for connections in (1, 16, 64, 256):
            before, began = cpu_seconds(pid), time.monotonic()
            figures = run(client.closed_loop(product.port, asked, connections=connections, seconds=seconds))
            count, wall = len(figures.latencies), time.monotonic() - began
            cpu = (cpu_seconds(pid) - before) / count * 1e6
            print(
                f"{connections:>11}  {count / wall:>5.0f}  {cpu:>10.0f}  {ms(figures, 0.5)}  {ms(figures, 0.99)}"
                f"  {figures.errors:>6}"
            )
            if connections == 1:
                added = percentile(figures.latencies, 0.5) - percentile(direct.latencies, 0.5)
        print(f"added to a call, one at a time: p50 {added * 1000:.2f} ms")
        time.sleep(1)
        before = cpu_seconds(pid)
        figures = run(client.streams(product.port, client.request(product.key, STREAM), count=STREAMS, spread=2))
        cpu = (cpu_seconds(pid) - before) / max(1, figures.chunks) * 1e6
        print(
            f"{STREAMS} streams x {CHUNKS} chunks, {INTERVAL * 1000:.0f} ms apart: {figures.chunks} chunks came, "
            f"{figures.out_of_order} out of order, {figures.errors} errors"
        )
        transits, gaps = figures.transits, figures.gaps
        print(
            f"  transit p50 {percentile(transits, 0.5) * 1000:.1f} ms, p99 {percentile(transits, 0.99) * 1000:.1f} ms, "
            f"max {max(transits) * 1000:.1f} ms; longest gap {max(gaps) * 1000:.0f} ms; CPU {cpu:.0f} µs/chunk"
        )
        print(f"memory at the end: {resident_mb(pid):.0f} MB")


@contextlib.contextmanager
def running_product() -> Iterator[tuple[Product, int]]:
    node_port = free_port()
    node = subprocess.Popen([sys.executable, "-m", "benchmarks.mock_node", str(node_port), str(CHUNKS), str(INTERVAL)])
    with tempfile.TemporaryDirectory() as data_dir:
        product = Product(Path(data_dir))
        try:
            product.start()
            os.sched_setaffinity(product.process.pid, {0})
            for pid in (os.getpid(), node.pid):
                os.sched_setaffinity(pid, {1})
            register(product, node_port)
            yield product, node_port
        finally:
            product.stop()
            node.terminate()
            node.wait()


def register(product: Product, node_port: int) -> None:
    headers = {"Authorization": f"Bearer {product.key}"}
    node = {"name": "mock", "base_url": f"http://127.0.0.1:{node_port}", "max_concurrency": 0}

    def registered() -> bool:
        response = httpx.post(f"{product.url}/api/nodes", json=node, headers=headers, timeout=10)
        return response.status_code in (201, 409)

    wait_until(registered, seconds=10, what="the mock node is registered")


def run(work: object) -> Figures:
    figures: Figures = uvloop.run(work)  # type: ignore[arg-type]
    return figures


def ms(figures: Figures, share: float) -> str:
    return f"{percentile(figures.latencies, share) * 1000:>6.2f}"


def cpu_seconds(pid: int) -> float:
    """Of the process and its threads, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024 / 1024


if __name__ == "__main__":
    main()
