"""Load balancers in front of gateways, each configured with the very text of docs/scaling.md."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from scripts import debian
from tests.support.product import ROOT, Product, free_port, wait_until

DOCUMENT: Final = ROOT / "docs" / "scaling.md"
START_SECONDS: Final = 10.0
STOP_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Front:
    """What clients ask in place of a gateway: a port of this machine. `key`: of the installation behind it."""

    port: int
    key: str


Balancer = Callable[[Sequence[Product]], AbstractContextManager[Front]]


@contextmanager
def haproxy(gateways: Sequence[Product]) -> Iterator[Front]:
    with tempfile.TemporaryDirectory(prefix="llmlb-haproxy-") as folder:
        front = Front(free_port(), gateways[0].key)
        config = Path(folder) / "haproxy.cfg"
        config.write_text(configured("haproxy", gateways).replace("bind :80", f"bind 127.0.0.1:{front.port}"))
        with _running(front.port, "haproxy", "haproxy", "-db", "-f", str(config)):
            yield front


@contextmanager
def nginx(gateways: Sequence[Product]) -> Iterator[Front]:
    with tempfile.TemporaryDirectory(prefix="llmlb-nginx-") as folder:
        front = Front(free_port(), gateways[0].key)
        site = configured("nginx", gateways).replace("listen 80;", f"listen 127.0.0.1:{front.port};")
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
        as_root = "user root;\n" if os.geteuid() == 0 else ""  # or its worker could not write into our folder
        config = Path(folder) / "nginx.conf"
        config.write_text(
            f"{as_root}daemon off;\npid {folder}/nginx.pid;\nevents {{}}\n"
            f"http {{\naccess_log off;\n{temporary}{site}}}\n"
        )
        with _running(front.port, "nginx", "nginx-light", "-c", str(config), "-e", f"{folder}/error.log"):
            yield front


def example(language: str) -> str:
    """The configuration in docs/scaling.md."""
    found = re.search(rf"```{language}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert found is not None, f"docs/scaling.md has no example for {language}"
    return found[1]


def configured(language: str, gateways: Sequence[Product]) -> str:
    """The example, with these gateways in place of its hosts 10.0.0.11, 10.0.0.12 …"""
    text = example(language)
    for number, gateway in enumerate(gateways, start=11):
        text = text.replace(f"10.0.0.{number}:32768", f"127.0.0.1:{gateway.port}")
    assert "10.0.0." not in text
    return text


@contextmanager
def _running(port: int, name: str, package: str, *arguments: str) -> Iterator[None]:
    try:
        program = debian.program(name, package)
    except debian.NotInstalled as error:
        pytest.skip(str(error))
    process = subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: process.poll() is not None or _answers(port), seconds=START_SECONDS, what=f"{name} answers")
        assert process.poll() is None, f"{name} ended with {process.returncode}"
        yield
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
