"""Step 1: who is calling, and may they? All of it before the body is read."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from hashlib import blake2b
from typing import Final

from access import keys
from access.permissions import Permission
from routing.core.errors import key_invalid, key_missing, permission_missing
from routing.core.table import Principal
from routing.engine import Engine

Principals = Mapping[str, Principal]

MAX_RECOGNISED: Final = 20_000
_MARK_KEY: Final = os.urandom(32)


async def identify(headers: Mapping[bytes, bytes], engine: Engine, permission: Permission) -> Principal:
    """The caller, who may do this. A refusal is never given from a table that might be older than the key.

    Raises: Refusal (401, 403).
    """
    presented = presented_key(headers)
    if engine.control.stale or presented[0] not in engine.principals:
        await engine.control.catch_up()
    principal = authenticate(presented, engine.principals)
    if len(engine.recognised) < MAX_RECOGNISED:
        engine.recognised[_mark(headers)] = principal
    require(principal, permission)
    return principal


def recognise(headers: Mapping[bytes, bytes], engine: Engine, permission: str) -> Principal | None:
    """The caller, if this very key was found genuine before and nothing has changed since; None says nothing."""
    if engine.control.stale:
        return None
    principal = engine.recognised.get(_mark(headers))
    if principal is None or permission not in principal.permissions:
        return None
    return principal if principal.expires_at is None or principal.expires_at > time.time() else None


def _mark(headers: Mapping[bytes, bytes]) -> bytes:
    """By what a genuine key is remembered: never the key, but a hash that only this process can compute."""
    # As good as a keyed BLAKE2, which cannot be extended either, and half of its time: all of it is one block.
    presented = b"%b%b\n%b" % (_MARK_KEY, headers.get(b"authorization", b""), headers.get(b"x-api-key", b""))
    return blake2b(presented).digest()


def presented_key(headers: Mapping[bytes, bytes]) -> tuple[str, str]:
    """The public id and secret of the key in `Authorization: Bearer` or `X-API-Key`.

    Raises: Refusal (401), if there is none or it cannot be a key.
    """
    text = _bearer(headers.get(b"authorization", b"")) or headers.get(b"x-api-key", b"").strip()
    if not text:
        raise key_missing()
    parts = keys.split(text.decode("latin-1"))
    if parts is None:
        raise key_invalid()
    return parts


def authenticate(presented: tuple[str, str], principals: Principals) -> Principal:
    """Raises: Refusal (401), with one text for every reason."""
    public_id, secret = presented
    principal = principals.get(public_id)
    genuine = keys.same(keys.digest(secret), principal.digest if principal is not None else None)
    if principal is None or not genuine:
        raise key_invalid()
    if principal.expires_at is not None and principal.expires_at <= time.time():
        raise key_invalid()
    return principal


def require(principal: Principal, permission: Permission) -> None:
    """Raises: Refusal (403) that names the permission."""
    if permission.value not in principal.permissions:
        raise permission_missing(permission.value)


def _bearer(value: bytes) -> bytes:
    scheme, _, rest = value.partition(b" ")
    return rest.strip() if scheme.lower() == b"bearer" else b""
