"""Signing in, bounded in how often one may try, and signing out."""

from __future__ import annotations

import hashlib
import logging
import time
from contextlib import suppress
from datetime import timedelta
from typing import Final

from django.conf import settings
from django.contrib.auth import authenticate
from django.core.cache import cache
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from redis.exceptions import RedisError

from access import keys
from access.audit import Actor, record
from access.models import SignInToken, User
from access.refusals import Invalid, SignInFailed, TooMany

log = logging.getLogger("llmlb.access")

# Failures in a window, for one name from one address, and for one address with any names.
WINDOW_SECONDS: Final = 60
FAILURES_PER_NAME: Final = 10
FAILURES_PER_ADDRESS: Final = 100


def authenticate_person(*, username: str, password: str, ip: str) -> User:
    """Who it is. An unknown name takes as long as a wrong password, and reads the same.

    Raises:
        TooMany: too many failures of late; the password is not even looked at.
        SignInFailed: no such active user, or not the password.
    """
    buckets = _take(username, ip)
    user = authenticate(username=username, password=password)
    if not isinstance(user, User):
        record("sign_in.failed", actor=Actor("user", _known_name(username), ip))
        raise SignInFailed
    for bucket in buckets:
        _give_back(bucket)
    return user


def confirm_password(user: User, password: str, *, ip: str) -> None:
    """That it is really them, and not someone at their open browser. Counts with the attempts to sign in.

    Raises:
        TooMany: too many failures of late; the password is not even looked at.
        Invalid: not the password.
    """
    buckets = _take(user.username, ip)
    if not user.check_password(password):
        raise Invalid(_("The current password is not right."), field="current_password")
    for bucket in buckets:
        _give_back(bucket)


def sign_in(*, username: str, password: str, ip: str) -> tuple[SignInToken, str]:
    """A token for `/api/*` and its text, which is nowhere else. Raises: as `authenticate_person`."""
    user = authenticate_person(username=username, password=password, ip=ip)
    minted = keys.mint_token()
    now = timezone.now()
    with transaction.atomic():
        token = SignInToken.objects.create(
            user=user,
            public_id=minted.public_id,
            digest=minted.digest,
            expires_at=now + timedelta(seconds=settings.SESSION_COOKIE_AGE),
        )
        User.objects.filter(pk=user.pk).update(last_login=now)
        record("sign_in.token", actor=Actor.user(user, ip))
    return token, minted.text


def sign_out(token: SignInToken, *, actor: Actor) -> None:
    """The person ends their own token."""
    _end(token, "sign_out", actor)


def revoke_token(token: SignInToken, *, actor: Actor) -> bool:
    """Someone ends a token. Returns whether it was alive until now."""
    return _end(token, "token.revoke", actor)


def _end(token: SignInToken, action: str, actor: Actor) -> bool:
    with transaction.atomic():
        ended = SignInToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=timezone.now())
        if ended:
            record(action, actor=actor, target=token.user.username)
    return bool(ended)


def _known_name(username: str) -> str:
    """The name, if it is one of ours: people also type their password into that field."""
    return username if User.objects.filter(username=username).exists() else "unknown"


def _take(username: str, ip: str) -> list[str]:
    window = int(time.time()) // WINDOW_SECONDS
    name = hashlib.sha256(username.casefold().encode()).hexdigest()
    limits = {
        f"sign-in:{window}:{ip}:{name}": FAILURES_PER_NAME,
        f"sign-in:{window}:{ip}": FAILURES_PER_ADDRESS,
    }
    try:
        for bucket, limit in limits.items():
            cache.add(bucket, 0, timeout=2 * WINDOW_SECONDS)
            if cache.incr(bucket) > limit:
                raise TooMany(WINDOW_SECONDS - int(time.time()) % WINDOW_SECONDS)
    except RedisError as error:
        # Whoever has to find out why Redis is down needs to sign in for it.
        log.warning("attempts to sign in are not counted: %s", type(error).__name__)
        return []
    return list(limits)


def _give_back(bucket: str) -> None:
    with suppress(ValueError, RedisError):  # its window has ended, or nobody counts
        cache.decr(bucket)
