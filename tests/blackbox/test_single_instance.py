"""One server per port, and what a second start is told."""

from __future__ import annotations

import json
import re

from tests.blackbox.conftest import MakeProduct
from tests.support.product import free_port


def test_a_second_start_names_the_first_and_how_to_stop_it(product: MakeProduct) -> None:
    first = product()
    first.start()
    second = product(port=first.port)  # with a data directory of its own: the port is what collides
    second.launch()
    assert second.wait() == 1
    assert f"pid {first.process.pid}" in second.output
    assert re.search(r"since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d", second.output)
    assert "manage.py stop" in second.output
    assert "Traceback" not in second.output
    assert first.is_ready()


def test_two_servers_on_one_data_directory_need_redis(product: MakeProduct) -> None:
    first = product()
    first.start()
    second = product(data_dir=first.data_dir)
    second.launch()
    assert second.wait() == 1
    assert "LLMLB_DATA_DIR" in second.output
    assert f"pid {first.process.pid}" in second.output


def test_another_port_and_directory_is_another_server(product: MakeProduct) -> None:
    first, second = product(), product()
    first.start()
    second.start()
    assert first.is_ready()
    assert second.is_ready()


def test_a_killed_server_leaves_nothing_in_the_way(product: MakeProduct) -> None:
    first = product()
    first.start()
    first.kill()
    second = product(data_dir=first.data_dir, port=first.port)
    second.start()
    assert second.is_ready()


def test_a_port_that_something_else_uses(product: MakeProduct) -> None:
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        refused = product(port=other.getsockname()[1])
        refused.launch()
        assert refused.wait() == 1
    assert "already in use by another program" in refused.output
    assert "Traceback" not in refused.output


def test_stop_and_status(product: MakeProduct) -> None:
    running = product()
    assert running.manage("status").returncode == 2
    assert running.manage("stop").returncode == 2
    running.start()
    status = running.manage("status", "--json")
    assert status.returncode == 0
    said = json.loads(status.stdout)
    assert said["state"] == "ready"
    assert said["pid"] == running.process.pid
    assert said["url"] == running.url
    stopped = running.manage("stop")
    assert stopped.returncode == 0, stopped.stderr
    assert running.wait() == 0
    assert running.manage("status", "--port", str(free_port())).returncode == 2
