"""The connection that the shared state rests on: what it answers, and that nothing hangs on a Redis that is gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import hiredis
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from llmlb_site.lib import health
from routing.state.redis_link import AGAIN_SECONDS, CONNECT_SECONDS, RedisDown, RedisLink, Script
from tests.support.private_redis import PrivateRedis
from tests.support.product import free_port

ADD = Script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
SUM = ("sum",)
LISTS = Script("return {ARGV[1], {1, false}}")
PUBLISH = Script("return redis.call('PUBLISH', KEYS[1], ARGV[1])")
WRONG = Script("return redis.call('LPUSH', KEYS[1], 1)")


@pytest.fixture
def server() -> Iterator[PrivateRedis]:
    with PrivateRedis() as server:
        yield server


@pytest.fixture
async def link(server: PrivateRedis) -> AsyncIterator[RedisLink]:
    link = RedisLink(server.url)
    await link.start()
    yield link
    await link.aclose()


async def come_back(link: RedisLink) -> None:
    async with asyncio.timeout(AGAIN_SECONDS + CONNECT_SECONDS + 1):
        while not link.up:
            await asyncio.sleep(0.01)


async def test_scripts_are_answered_each_with_its_own(link: RedisLink) -> None:
    sums = [link.run(ADD, SUM, each) for each in (1, 2, 3)]
    text = await link.run(LISTS, (), "天気")
    assert [await each for each in sums] == [1, 3, 6]
    assert text == ["天気".encode(), [1, None]]


async def test_what_is_told_is_done_before_what_is_asked_next(link: RedisLink) -> None:
    await link.run(ADD, SUM, 0)
    answers: list[Any] = []
    link.tell_script(ADD, SUM, 5)
    link.tell_script(ADD, SUM, 5, heard=answers.append)
    assert await link.run(ADD, SUM, 1) == 11
    assert answers == [10]


async def test_a_caller_that_left_has_its_answer_taken_care_of(link: RedisLink) -> None:
    unwanted: list[Any] = []

    async def take() -> None:
        await link.run(ADD, SUM, 1, unwanted=unwanted.append)

    leaving = asyncio.create_task(take())
    await asyncio.sleep(0)
    leaving.cancel()
    assert await link.run(ADD, SUM, 0) == 1
    assert unwanted == [1]


async def test_messages_come_on_the_same_connection_in_order(link: RedisLink) -> None:
    heard: list[bytes] = []
    link.subscribe("news", heard.append)
    counts = [link.run(PUBLISH, ("news",), text) for text in ("one", "two")]
    assert [await each for each in counts] == [1, 1]
    assert heard == [b"one", b"two"]


async def test_a_redis_that_hangs_costs_one_short_wait_and_then_none(link: RedisLink, server: PrivateRedis) -> None:
    await link.run(ADD, SUM, 1)
    server.hang()
    began = time.monotonic()
    with pytest.raises(RedisDown):
        await link.run(ADD, SUM, 1)
    first = time.monotonic() - began
    for _ in range(1000):
        with pytest.raises(RedisDown):
            await link.run(ADD, SUM, 1)
    assert first < 1
    assert time.monotonic() - began < first + 0.5
    assert len(health.failing()) == 1
    server.go_on()
    await come_back(link)
    assert await link.run(ADD, SUM, 1) >= 2
    assert not health.failing()


async def test_a_process_that_stood_still_itself_does_not_blame_redis(link: RedisLink) -> None:
    await link.run(ADD, SUM, 0)
    asked = link.run(ADD, SUM, 1)
    await asyncio.sleep(0)
    time.sleep(1)  # noqa: ASYNC251  # a loop that is blocked is what this is about
    assert await asked == 1


async def test_after_a_restart_it_is_back_and_says_so_first(link: RedisLink, server: PrivateRedis) -> None:
    assert await link.run(ADD, SUM, 7) == 7
    first: list[Awaitable[Any]] = []
    link.on_up(lambda: first.append(link.run(ADD, SUM, 1)))
    server.kill()
    with pytest.raises(RedisDown):
        await link.run(ADD, SUM, 1)
    server.start()
    await come_back(link)
    assert await link.run(ADD, SUM, 1) == 2, "a Redis that keeps nothing starts afresh"
    assert [await each for each in first] == [1]


async def test_a_refusal_is_the_callers_and_one_that_nobody_hears_renews_the_connection(link: RedisLink) -> None:
    await link.run(ADD, SUM, 1)
    with pytest.raises(hiredis.ReplyError):
        await link.run(WRONG, SUM)
    ups: list[bool] = []
    link.on_up(lambda: ups.append(True))
    link.tell_script(WRONG, SUM)
    async with asyncio.timeout(5):
        while not ups:
            await asyncio.sleep(0.01)
    assert await link.run(ADD, SUM, 1) == 2


async def test_a_redis_that_takes_nothing_is_away_and_says_why(server: PrivateRedis) -> None:
    port = free_port()
    for break_it, mend_it, why in (
        (("REPLICAOF", "127.0.0.1", port), ("REPLICAOF", "NO", "ONE"), "READONLY"),
        (("CONFIG", "SET", "maxmemory", 1), ("CONFIG", "SET", "maxmemory", 0), "OOM"),
    ):
        link = RedisLink(server.url)
        await link.start()
        assert link.up
        await link.call(*break_it)
        other = RedisLink(server.url)
        ups: list[bool] = []
        other.on_up(lambda: ups.append(True))  # noqa: B023  # called in this turn
        await other.start()
        assert not other.up
        assert not ups
        assert why in next(part.detail for part in health.failing())
        await link.call(*mend_it)
        await come_back(other)
        assert not health.failing()
        await link.aclose()
        await other.aclose()


async def test_it_is_let_in_with_a_password_and_not_without() -> None:
    with PrivateRedis(more=("--requirepass", "secret")) as server:
        for credentials, is_up in (("", False), (":wrong@", False), (":secret@", True), ("default:secret@", True)):
            link = RedisLink(server.url.replace("redis://", f"redis://{credentials}"))
            await link.start()
            assert link.up == is_up, credentials
            await link.aclose()


async def test_a_unix_socket_will_do(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    with PrivateRedis(more=("--unixsocket", str(path))):
        link = RedisLink(f"unix://{path}?db=3")
        await link.start()
        assert await link.run(ADD, SUM, 1) == 1
        await link.aclose()


async def test_tls_is_checked_against_the_authority_that_is_named(tmp_path: Path) -> None:
    key, certificate = self_signed(tmp_path)
    port = free_port()
    tls = ("--tls-port", str(port), "--tls-cert-file", str(certificate), "--tls-key-file", str(key))
    with PrivateRedis(more=(*tls, "--tls-auth-clients", "no")):
        url = f"rediss://localhost:{port}/3"
        for options, is_up in ((f"?ssl_ca_certs={certificate}", True), ("?ssl_cert_reqs=none", True), ("", False)):
            link = RedisLink(url + options)
            await link.start()
            assert link.up == is_up, options
            await link.aclose()


def self_signed(directory: Path) -> tuple[Path, Path]:
    """A key, and a certificate for localhost that is its own authority."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, private.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    pem = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (directory / "key.pem").write_bytes(pem)
    (directory / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return directory / "key.pem", directory / "certificate.pem"


async def test_without_a_redis_a_start_returns_and_calls_fail_at_once() -> None:
    link = RedisLink("redis://127.0.0.1:1/0")
    async with asyncio.timeout(3):
        await link.start()
        with pytest.raises(RedisDown):
            await link.run(ADD, SUM, 1)
    await link.aclose()
    assert not health.failing()
