"""A large upload goes through the running product without being held in its memory."""

from __future__ import annotations

import sys
from pathlib import Path

import httpx
import pytest

from tests.support.product import Product
from tests.support.sink import running_sink
from tests.support.uploads import Upload, forget_peak, peak_bytes, resident_bytes

MIB = 1024 * 1024
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def test_uploads_of_25_and_100_mib_raise_the_gateways_memory_by_less_than_10_mib(tmp_path: Path) -> None:
    with running_sink() as node, Product(tmp_path / "data") as product, httpx.Client(timeout=60) as client:
        register = {"name": "ears", "base_url": node.url}
        registered = client.post(f"{product.url}/api/nodes", json=register, headers=product.headers)
        assert registered.status_code == 201, registered.text
        raised = []
        for size in (MIB, 25 * MIB, 100 * MIB):  # the first one to warm up
            upload = Upload(size)
            before = resident_bytes(product.process.pid)
            forget_peak(product.process.pid)
            answer = client.post(
                f"{product.url}/v1/audio/transcriptions",
                content=iter(upload),
                headers={**product.headers, **upload.headers},
            )
            raised.append(peak_bytes(product.process.pid) - before)
            assert (answer.status_code, answer.json()) == (200, {"text": "hello"})
            assert node.taken[-1] == (upload.length, upload.digest)
        assert max(raised[1:]) < 10 * MIB, [f"{more / MIB:.1f} MiB" for more in raised]
