"""Settings that cannot work stop the start, in words."""

from __future__ import annotations

import pytest

from tests.blackbox.conftest import MakeProduct


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"LLMLB_HEALTH_CHECK_INTERVAL": "0"}, ("LLMLB_HEALTH_CHECK_INTERVAL=0", "from 1 to 300")),
        ({"LLMLB_QUEUE_MAX": "many"}, ("LLMLB_QUEUE_MAX=many", "from 1 to 10000")),
        ({"LLMLB_MAX_BODY_BYTES": "20MiB"}, ("LLMLB_MAX_BODY_BYTES=20MiB", "from 1024 to 1073741824")),
        ({"LLMLB_LOAD_BALANCER_MODE": "fastest"}, ("LLMLB_LOAD_BALANCER_MODE=fastest", "least_busy")),
        ({"LLMLB_TRUSTED_PROXIES": "everyone"}, ("LLMLB_TRUSTED_PROXIES", "CIDR")),
        ({"LLMLB_BOOTSTRAP_API_KEY": "short"}, ("LLMLB_BOOTSTRAP_API_KEY", "32")),
        ({"LLMLB_SECRET_KEY_FILE": "/nowhere/key"}, ("LLMLB_SECRET_KEY_FILE", "/nowhere/key")),
        ({"LLMLB_DATABASE_URL": "mysql://db/llmlb"}, ("LLMLB_DATABASE_URL", "postgres://")),
        ({"LLMLB_DATABASE_URL": "postgres://nobody@127.0.0.1"}, ("LLMLB_DATABASE_URL", "postgres://")),
        ({"LLMLB_REDIS_URL": "127.0.0.1:6379"}, ("LLMLB_REDIS_URL", "redis://")),
    ],
)
def test_a_bad_value_is_one_line_that_names_it(
    product: MakeProduct, environment: dict[str, str], words: tuple[str, ...]
) -> None:
    refused = product(environment=environment)
    refused.launch()
    assert refused.wait() == 1
    assert all(word in refused.output for word in words), refused.output
    assert len(refused.output.splitlines()) == 1, refused.output


@pytest.mark.parametrize(
    ("environment", "command", "identifier"),
    [
        ({"LLMLB_PROCESSES": "2"}, ("serve",), "llmlb.serve.E001"),
        ({}, ("serve", "--no-worker"), "llmlb.serve.E002"),
    ],
)
def test_a_mix_that_cannot_work_is_refused_with_an_id(
    product: MakeProduct, environment: dict[str, str], command: tuple[str, ...], identifier: str
) -> None:
    refused = product(environment=environment, command=command)
    refused.launch()
    assert refused.wait() == 1
    assert identifier in refused.output
    assert "Traceback" not in refused.output


def test_a_misspelt_variable_is_warned_of(product: MakeProduct) -> None:
    with product(environment={"LLMLB_QEUE_MAX": "5"}) as running:
        assert "LLMLB_QEUE_MAX" in running.output
        assert "LLMLB_QUEUE_MAX" in running.output


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"LLMLB_REDIS_URL": "redis://127.0.0.1:1"}, "Redis cannot be reached (LLMLB_REDIS_URL)"),
        ({"LLMLB_DATABASE_URL": "postgres://nobody:secret@127.0.0.1:1/none"}, "the database cannot be used"),
    ],
)
def test_a_service_that_does_not_answer_is_named(product: MakeProduct, environment: dict[str, str], words: str) -> None:
    refused = product(environment=environment)
    refused.launch()
    assert refused.wait() == 1
    assert words in refused.output
    assert "secret" not in refused.output
    assert "Traceback" not in refused.output
