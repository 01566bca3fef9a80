"""What the two addresses say of the ways there holds for every part: options, TLS, the rights that llmlb needs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
import redis
from django.core.exceptions import ImproperlyConfigured

from llmlb_site.lib.config import read_config
from llmlb_site.serve.prepare import CannotStart, check_redis
from routing.state.redis_link import RedisLink
from tests.scaled.conftest import MakeProduct
from tests.scaled.test_redis_link import self_signed
from tests.support.hosts import Network, forwarded
from tests.support.private_redis import PrivateRedis
from tests.support.product import ROOT, Product, free_port

BROKER = (
    "from llmlb_site.celery import app\n"
    "with app.connection_for_write() as broker:\n"
    "    print(broker.ensure_connection(max_retries=1, interval_start=0) and broker.default_channel.client.ping())"
)


# Ask the database, wait for a line, and ask again on the same connection.
ASKS = (
    "import django, sys; django.setup()\n"
    "from django.db import OperationalError, connection\n"
    "with connection.cursor() as cursor:\n"
    "    cursor.execute('SELECT 1')\n"
    "    print('asked', flush=True); sys.stdin.readline()\n"
    "    try:\n"
    "        cursor.execute('SELECT 2')\n"
    "    except OperationalError:\n"
    "        print('gave up', flush=True)"
)
GIVEN_UP_SECONDS = 30


@contextmanager
def over_tls(directory: Path, *more: str) -> Iterator[tuple[str, str]]:
    """The address of a Redis over TLS, and the path of the certificate that it shows, signed by nobody else."""
    key, certificate = self_signed(directory)
    port = free_port()
    tls = ("--tls-port", str(port), "--tls-cert-file", str(certificate), "--tls-key-file", str(key), *more)
    with PrivateRedis(more=tls):
        yield f"rediss://localhost:{port}/3", str(certificate)


@pytest.mark.parametrize(
    ("url", "is_good"),
    [
        ("redis://redis", True),
        ("redis://redis:6379/", True),
        ("redis://user:p%2Fw@10.0.0.1:6379/15", True),
        ("rediss://[::1]:6380/0?ssl_ca_certs=/ca.pem&ssl_cert_reqs=none", True),
        ("redis:6379", False),
        ("redis://", False),
        ("redis://redis:port/0", False),
        ("redis://redis/llmlb", False),
        ("redis://:se/cret@redis/0", False),
        ("redis://redis?db=3", False),  # Celery would take number 0
        ("redis://redis/0?ssl_cert_reqs=none", False),
        ("unix:///run/redis.sock", False),  # Celery has another name for it
        ("redis+cluster://redis:6379", False),
        ("sentinel://redis:26379/0", False),
    ],
)
def test_an_address_of_redis_is_one_that_every_part_reads_alike(
    url: str, is_good: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMLB_REDIS_URL", url)
    if is_good:
        assert read_config(Path("/base")).redis_url == url
        return
    with pytest.raises(ImproperlyConfigured, match="LLMLB_REDIS_URL") as refused:
        read_config(Path("/base"))
    assert url.removeprefix("redis://") not in str(refused.value) or url == "redis://"


def test_options_of_the_databases_address_are_kept(gateway: MakeProduct, database_url: str) -> None:
    running = gateway(LLMLB_DATABASE_URL=f"{database_url}?application_name=llmlb-test")
    with running, psycopg.connect(database_url) as connection:
        asked = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'llmlb-test'"
        assert connection.execute(asked).fetchone() != (0,)


@pytest.mark.skipif(bool(Network.why_not()), reason=Network.why_not() or "it can be done")
def test_a_database_that_vanishes_without_a_word_is_given_up(tmp_path: Path, database_url: str) -> None:
    local = urlsplit(database_url)
    with (
        Network() as network,
        forwarded(network.address(1), (local.hostname or "localhost", local.port or 5432)) as port,
    ):
        host = network.add_host()
        user = local.netloc.rpartition("@")[0]
        url = f"postgres://{user}@{network.address(1)}:{port}{local.path}"
        environment = {"LLMLB_DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "llmlb_site.settings"}
        here = Product(tmp_path, environment=environment).environment()
        command = [*host.prefix, sys.executable, "-c", ASKS]
        with subprocess.Popen(
            command, cwd=ROOT, env=here, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as asking:
            assert asking.stdout is not None
            assert asking.stdout.readline() == "asked\n"
            host.unplug(network.address(1))
            try:
                said, _ = asking.communicate("\n", timeout=GIVEN_UP_SECONDS)
            finally:
                asking.kill()
            assert said == "gave up\n"


def test_celery_wants_a_good_certificate_too(tmp_path: Path) -> None:
    with over_tls(tmp_path, "--tls-auth-clients", "no") as (url, certificate):
        for options, is_up in (("", False), (f"?ssl_ca_certs={certificate}", True), ("?ssl_cert_reqs=none", True)):
            here = Product(tmp_path, environment={"LLMLB_REDIS_URL": url + options}).environment()
            asked = subprocess.run(
                [sys.executable, "-c", BROKER], env=here, capture_output=True, text=True, timeout=30, check=False
            )
            assert ("True" in asked.stdout) == is_up, (options, asked.stderr)


async def test_a_redis_that_wants_a_certificate_gets_it(tmp_path: Path) -> None:
    with over_tls(tmp_path, "--tls-ca-cert-file", str(tmp_path / "certificate.pem")) as (url, certificate):
        url += f"?ssl_ca_certs={certificate}"
        for options, is_up in (("", False), (f"&ssl_certfile={certificate}&ssl_keyfile={tmp_path / 'key.pem'}", True)):
            link = RedisLink(url + options)
            await link.start()
            assert link.up == is_up, options
            await link.aclose()


def test_a_redis_that_cannot_be_used_is_refused_in_its_own_words() -> None:
    with PrivateRedis() as server, redis.Redis.from_url(server.url) as client:
        check_redis(server.url)
        address = server.url.removeprefix("redis://")
        client.acl_setuser("half", True, passwords=["+half"], keys=["llmlb:*"], commands=["+@all"], reset_channels=True)
        with pytest.raises(CannotStart, match=r"Redis refuses .*channel"):
            check_redis(f"redis://half:half@{address}")
        with pytest.raises(CannotStart, match=r"Redis refuses .*[Ii]nvalid username-password"):
            check_redis(f"redis://half:secret@{address}")
        with pytest.raises(CannotStart, match=r"Redis refuses .*out of range"):
            check_redis(f"redis://{address[:-1]}99")
        client.replicaof("127.0.0.1", free_port())
        with pytest.raises(CannotStart, match=r"Redis refuses .*read only replica"):
            check_redis(server.url)


def test_a_cluster_is_refused() -> None:
    with PrivateRedis(more=("--cluster-enabled", "yes")) as server:
        url = server.url.removesuffix("/3")
        with redis.Redis.from_url(url) as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        with pytest.raises(CannotStart, match="Redis refuses"):
            check_redis(url)
