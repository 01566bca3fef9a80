"""The listening sockets: taken ports are said plainly, and nothing is accepted before a server opens them."""

from __future__ import annotations

import socket

import pytest

from llmlb_site.serve.listener import CannotListen, base_url, bind
from tests.support.product import free_port


def test_a_bound_socket_refuses_connections_until_a_server_listens() -> None:
    port = free_port()
    (bound,) = bind("127.0.0.1", port)
    with bound, socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", port)) != 0


def test_a_taken_port_is_named_with_the_way_out() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(CannotListen, match=rf"port {port} .* already in use .* LLMLB_PORT"):
            bind("127.0.0.1", port)


def test_an_address_that_is_not_ours_is_named() -> None:
    with pytest.raises(CannotListen, match=r"192\.0\.2\.1"):
        bind("192.0.2.1", free_port())


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://localhost:80"),
        ("::", "http://localhost:80"),
        ("::1", "http://[::1]:80"),
        ("llm.example", "http://llm.example:80"),
    ],
)
def test_the_url_is_one_that_a_browser_can_open(host: str, url: str) -> None:
    assert base_url(host, 80) == url
