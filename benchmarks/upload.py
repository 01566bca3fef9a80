"""What large uploads cost the gateway: memory and time, one after the other, through the real product.

`python -m benchmarks.upload [MIB …]` (default 25 100). The node takes them without keeping them.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import httpx

from tests.support.product import Product
from tests.support.sink import running_sink
from tests.support.uploads import Upload, forget_peak, peak_bytes, resident_bytes

MIB = 1024 * 1024


def measure(product: Product, client: httpx.Client, size: int) -> str:
    """Send one upload and tell what it took."""
    upload, pid = Upload(size), product.process.pid
    before = resident_bytes(pid)
    forget_peak(pid)
    began = time.perf_counter()
    answer = client.post(
        f"{product.url}/v1/audio/transcriptions",
        content=iter(upload),
        headers={**product.headers, **upload.headers},
    )
    took = time.perf_counter() - began
    answer.raise_for_status()
    raised = (peak_bytes(pid) - before) / MIB
    return f"{size // MIB:5d} MiB  memory +{raised:.1f} MiB  {took:.2f} s  {size / MIB / took:.0f} MiB/s"


def main() -> None:
    sizes = [int(argument) for argument in sys.argv[1:]] or [25, 100]
    with (
        tempfile.TemporaryDirectory() as place,
        running_sink() as node,
        Product(Path(place) / "data") as product,
        httpx.Client(timeout=300) as client,
    ):
        register = {"name": "sink", "base_url": node.url}
        client.post(f"{product.url}/api/nodes", json=register, headers=product.headers).raise_for_status()
        measure(product, client, MIB)  # to warm up
        for size in sizes:
            print(measure(product, client, size * MIB), flush=True)


if __name__ == "__main__":
    main()
