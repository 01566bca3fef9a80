"""Sign-in tokens of the API: given for a password, bounded, ended by logout and with their person."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.conf import settings
from django.core.cache import cache
from django.test import Client
from django.utils import timezone
from redis.exceptions import ConnectionError as RedisConnectionError

from access import services
from access.audit import SYSTEM
from access.models import AuditEvent, SignInToken, User
from access.permissions import Role
from access.tasks import prune
from tests.conftest import PASSWORD

LOGIN = "/api/auth/login"


def log_in(client: Client, username: str, password: str = PASSWORD, **extra: Any) -> Any:
    values = {"username": username, "password": password}
    return client.post(LOGIN, values, content_type="application/json", **extra)


def test_a_password_gives_a_token_that_works(hana: User, client: Client, with_key: Callable[[str], Client]) -> None:
    answer = log_in(client, "hana")

    assert answer.status_code == 200
    body = answer.json()
    assert body["expires_in"] == 7 * 86400
    assert body["user"] == {
        "id": hana.pk,
        "username": "hana",
        "role": "administrator",
        "must_change_password": False,
    }
    me = with_key(body["token"]).get("/api/auth/me")
    assert me.json() == {**body["user"], "user_id": hana.pk}
    assert with_key(body["token"]).get("/api/users").status_code == 200
    hana.refresh_from_db()
    assert hana.last_login is not None


def test_every_failure_reads_the_same(hana: User, yui: User, client: Client) -> None:
    User.objects.filter(pk=yui.pk).update(is_active=False)

    answers = [log_in(client, "hana", "wrong"), log_in(client, "nobody"), log_in(client, "yui")]

    assert {answer.status_code for answer in answers} == {401}
    assert {answer.json()["error"]["message"] for answer in answers} == {"Invalid username or password"}
    assert {answer.json()["error"]["code"] for answer in answers} == {"invalid_credentials"}


def test_what_was_typed_as_a_name_is_kept_only_if_it_is_one(hana: User, client: Client) -> None:
    log_in(client, "hana", "wrong")
    log_in(client, "my secret password", "wrong")

    assert list(AuditEvent.objects.filter(action="sign_in.failed").values_list("actor", flat=True)) == [
        "unknown",
        "hana",
    ]


@pytest.mark.parametrize("body", [{}, {"username": "hana"}, {"username": ["hana"], "password": {}}])
def test_a_body_without_both_is_refused(db: None, client: Client, body: dict[str, Any]) -> None:
    assert client.post(LOGIN, body, content_type="application/json").status_code == 400


def test_guessing_is_stopped_for_that_name_and_address_alone(hana: User, ken: User, client: Client) -> None:
    with time_machine.travel(timezone.now(), tick=False) as clock:
        for _ in range(10):
            assert log_in(client, "hana", "wrong").status_code == 401
        stopped = log_in(client, "hana")

        assert stopped.status_code == 429
        assert 1 <= int(stopped["Retry-After"]) <= 60
        assert log_in(client, "ken").status_code == 200
        assert log_in(client, "hana", REMOTE_ADDR="192.0.2.7").status_code == 200
        clock.shift(timedelta(seconds=61))
        assert log_in(client, "hana").status_code == 200


def test_signing_in_often_is_no_guessing(hana: User, client: Client) -> None:
    assert {log_in(client, "hana").status_code for _ in range(15)} == {200}


def test_one_can_sign_in_while_nobody_counts(
    hana: User, client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def down(*args: object, **kwargs: object) -> None:
        raise RedisConnectionError("redis.internal:6379 refused")

    monkeypatch.setattr(cache, "add", down, raising=False)

    assert log_in(client, "hana").status_code == 200
    assert log_in(client, "hana", "wrong").status_code == 401
    assert "not counted" in caplog.text
    assert "redis.internal" not in caplog.text


def test_housekeeping_is_a_task() -> None:
    assert prune.name == "access.prune"
    assert prune.name in {entry["task"] for entry in settings.CELERY_BEAT_SCHEDULE.values()}


def test_logout_ends_this_token_alone(hana: User, client: Client, with_key: Callable[[str], Client]) -> None:
    first, second = (log_in(client, "hana").json()["token"] for _ in range(2))

    assert with_key(first).post("/api/auth/logout").status_code == 204

    assert with_key(first).get("/api/auth/me").status_code == 401
    assert with_key(second).get("/api/auth/me").status_code == 200


def test_a_token_ends_when_it_says(hana: User, client: Client, with_key: Callable[[str], Client]) -> None:
    token = log_in(client, "hana").json()["token"]
    SignInToken.objects.update(expires_at=timezone.now() - timedelta(seconds=1))

    assert with_key(token).get("/api/auth/me").status_code == 401


@pytest.mark.parametrize(
    "end",
    [
        lambda user: services.delete_user(user, actor=SYSTEM),
        lambda user: services.update_user(user, is_active=False, actor=SYSTEM),
        lambda user: services.update_user(user, role="viewer", actor=SYSTEM),
        lambda user: services.reset_password(user, actor=SYSTEM),
        lambda user: services.sign_out_everywhere(user, actor=SYSTEM),
    ],
    ids=["deleted", "deactivated", "demoted", "password reset", "signed out"],
)
def test_tokens_and_sessions_end_with_their_person(
    hana: User,
    ken: User,
    client: Client,
    signed_in: Callable[[User], Client],
    with_key: Callable[[str], Client],
    end: Callable[[User], object],
) -> None:
    token, browser, other = log_in(client, "ken").json()["token"], signed_in(ken), signed_in(hana)
    assert with_key(token).get("/api/auth/me").status_code == 200
    assert browser.get("/api/auth/me").status_code == 200

    end(ken)

    assert with_key(token).get("/api/auth/me").status_code == 401
    assert browser.get("/api/auth/me").status_code == 401
    assert other.get("/api/auth/me").status_code == 200


def test_a_session_does_not_come_back_with_its_person(ken: User, signed_in: Callable[[User], Client]) -> None:
    browser = signed_in(ken)
    services.update_user(ken, is_active=False, actor=SYSTEM)
    services.update_user(ken, is_active=True, actor=SYSTEM)

    assert browser.get("/api/auth/me").status_code == 401


def test_a_promotion_signs_nobody_out(yui: User, signed_in: Callable[[User], Client]) -> None:
    browser = signed_in(yui)
    services.update_user(yui, role=Role.OPERATOR, actor=SYSTEM)

    assert browser.get("/api/auth/me").json()["role"] == "operator"


def test_old_tokens_are_forgotten(hana: User, client: Client) -> None:
    log_in(client, "hana")
    with time_machine.travel(timezone.now() + timedelta(days=36)):
        assert services.prune_credentials() == 0
    with time_machine.travel(timezone.now() + timedelta(days=38)):
        assert services.prune_credentials() == 1
