"""Reading people and keys: who presented this, and everything that the gateway's key table holds."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from django.db.models import QuerySet

from access import keys
from access.models import ApiKey, KeyLimit, SignInToken, User
from access.permissions import Permission, Role


class PrincipalRow(NamedTuple):
    """An API key as the gateway needs it, nothing lazy."""

    key_id: int
    public_id: str
    digest: bytes
    name: str
    owner_id: int
    owner_active: bool
    permissions: frozenset[Permission]  # of the key, as far as its owner's role has them
    allowed_models: tuple[str, ...]  # empty: all
    expires_at: datetime | None
    revoked: bool
    enabled: bool
    limits: tuple[KeyLimit, ...]


def live_principals() -> Iterator[PrincipalRow]:
    """Every key that may be live, with what it may do. Revoked ones are left out; the other flags are the caller's."""
    live = ApiKey.objects.filter(revoked_at=None).select_related("owner").prefetch_related("limits")
    for key in live.order_by().iterator(2000):
        yield PrincipalRow(
            key_id=key.pk,
            public_id=key.public_id,
            digest=bytes(key.digest),
            name=key.name,
            owner_id=key.owner_id,
            owner_active=key.owner.is_active,
            permissions=key.effective_permissions,
            allowed_models=tuple(key.allowed_models),
            expires_at=key.expires_at,
            revoked=False,
            enabled=key.enabled,
            limits=tuple(key.limits.all()),
        )


def find_api_key(text: str) -> ApiKey | None:
    """The live key that `text` is, with its owner. Every kind of failure is None, in the same time."""
    parts = keys.split(text)
    if parts is None:
        return None
    key = ApiKey.objects.select_related("owner").filter(public_id=parts[0]).first()
    genuine = keys.same(keys.digest(parts[1]), key.digest if key else None)
    return key if key and genuine and key.state == "active" else None


def find_token(text: str) -> SignInToken | None:
    """The live sign-in token that `text` is, with its user."""
    parts = keys.split_token(text)
    if parts is None:
        return None
    token = SignInToken.objects.select_related("user").filter(public_id=parts[0]).first()
    genuine = keys.same(keys.token_digest(parts[1]), token.digest if token else None)
    return token if token and genuine and token.is_live() and token.user.is_active else None


def keys_of(user: User) -> QuerySet[ApiKey]:
    return all_keys().filter(owner=user)


def all_keys() -> QuerySet[ApiKey]:
    return ApiKey.objects.select_related("owner").prefetch_related("limits")


def active_administrators() -> QuerySet[User]:
    return User.objects.filter(role=Role.ADMINISTRATOR, is_active=True)
