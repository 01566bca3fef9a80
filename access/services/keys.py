"""API keys: mint, change, revoke, and when each was last used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from access import keys
from access.audit import Actor, record
from access.models import ApiKey, User
from access.permissions import Permission
from access.refusals import Conflict, Invalid, NotAllowed
from access.services.limits import replace_limits
from llmlb_site.lib.events import publish

LONGEST_NAME: Final = 100
MOST_ALLOWED_MODELS: Final = 1000
LONGEST_MODEL_ID: Final = 300
NOTED_EVERY: Final = timedelta(minutes=1)


def mint_api_key(
    *,
    owner: User,
    name: str,
    permissions: Sequence[str],
    actor: Actor,
    expires_at: datetime | None = None,
    allowed_models: Sequence[str] = (),
    limits: Sequence[Mapping[str, Any]] = (),
    within: frozenset[Permission] | None = None,
    minted: keys.MintedKey | None = None,
) -> tuple[ApiKey, str]:
    """A new key and its text, which is nowhere else and cannot be shown again.

    `within` is the most that whoever mints may give (the owner's role bounds it in any case). `minted` is for a key
    whose text someone else chose. `limits` are as of `replace_limits`.

    Raises:
        Invalid: no or unknown permissions, one that the owner's role has not, an expiry in the past, a bad name, a
            limit that cannot be.
        Conflict: the owner has a live key of that name.
    """
    secret = minted or keys.mint()
    key = ApiKey(
        owner=owner,
        name=_checked_name(name),
        public_id=secret.public_id,
        digest=secret.digest,
        permissions=_checked_permissions(permissions, owner, within),
        allowed_models=_checked_models(allowed_models),
        expires_at=_checked_expiry(expires_at),
    )
    with transaction.atomic():
        _save(key)
        record("key.mint", actor=actor, target=str(key), details={"permissions": key.permissions})
        if limits:
            replace_limits(key, limits, actor=actor)
        publish("keys")
    return key, secret.text


def update_api_key(key: ApiKey, *, actor: Actor, within: frozenset[Permission] | None = None, **changes: Any) -> ApiKey:
    """Change any of `name`, `permissions`, `allowed_models`, `expires_at`, `enabled`, `limits` (all of them).

    Raises:
        Invalid, Conflict: as when minting; Conflict too for a key that is revoked.
    """
    if not changes:
        return key
    if key.revoked_at is not None:
        raise Conflict(_("This key is revoked. Mint a new one."), code="key_revoked")
    if within is not None and not key.effective_permissions <= within:
        raise NotAllowed(_("This key may do more than you may give."))
    checks: dict[str, Any] = {
        "name": _checked_name,
        "permissions": lambda value: _checked_permissions(value, key.owner, within),
        "allowed_models": _checked_models,
        "expires_at": lambda value: value if value == key.expires_at else _checked_expiry(value),
        "enabled": bool,
    }
    limits = changes.pop("limits", None)
    for field, value in changes.items():
        setattr(key, field, checks[field](value))
    with transaction.atomic():
        if changes:
            _save(key, update_fields=[*changes])
            record("key.update", actor=actor, target=str(key), details={"changed": sorted(changes)})
        if limits is not None:
            replace_limits(key, limits, actor=actor)
        publish("keys")
    return key


def revoke_api_key(key: ApiKey, *, actor: Actor) -> bool:
    """End a key for good. Returns whether it was alive until now."""
    with transaction.atomic():
        ended = ApiKey.objects.filter(pk=key.pk, revoked_at=None).update(revoked_at=timezone.now())
        if ended:
            record("key.revoke", actor=actor, target=str(key))
            publish("keys")
    key.refresh_from_db(fields=["revoked_at"])
    return bool(ended)


def note_used(public_ids: Iterable[str], at: datetime | None = None) -> None:
    """These keys were used. For callers that collect: once a minute is often enough."""
    ids, moment = list(public_ids), at or timezone.now()
    earlier = Q(last_used_at=None) | Q(last_used_at__lt=moment)
    for start in range(0, len(ids), 500):
        ApiKey.objects.filter(earlier, public_id__in=ids[start : start + 500]).update(last_used_at=moment)


def note_used_now(key: ApiKey) -> None:
    """This key was used, unless that was noted within the last minute."""
    now = timezone.now()
    if key.last_used_at is None or now - key.last_used_at > NOTED_EVERY:
        note_used([key.public_id], now)


def _save(key: ApiKey, **options: Any) -> None:
    taken = ApiKey.objects.filter(owner=key.owner, name=key.name, revoked_at=None).exclude(pk=key.pk)
    duplicate = Conflict(_("There is already a key of this name."), code="duplicate_name", field="name")
    if taken.exists():
        raise duplicate
    try:
        with transaction.atomic():
            key.save(**options)
    except IntegrityError as error:  # another request was first
        raise duplicate from error


def _checked_name(name: str) -> str:
    name = name.strip()
    if not 1 <= len(name) <= LONGEST_NAME:
        raise Invalid(_("A key's name has 1 to 100 characters."), field="name")
    if not name.isprintable():
        raise Invalid(_("A name is printable text on one line."), field="name")
    return name


def _checked_permissions(listed: Sequence[str], owner: User, within: frozenset[Permission] | None) -> list[str]:
    if not listed:
        raise Invalid(_("permissions are required"), field="permissions")
    if unknown := sorted(set(listed) - set(Permission.values)):
        raise Invalid(_("There is no permission %s.") % ", ".join(unknown), field="permissions")
    allowed = owner.granted if within is None else owner.granted & within
    if excess := sorted(set(listed) - {permission.value for permission in allowed}):
        raise Invalid(_("You cannot give the permission %s.") % ", ".join(excess), field="permissions")
    return [permission.value for permission in Permission if permission.value in listed]


def _checked_models(models: Sequence[str]) -> list[str]:
    if len(models) > MOST_ALLOWED_MODELS:
        raise Invalid(_("At most 1000 models can be listed."), field="allowed_models")
    names = list(dict.fromkeys(model.strip() for model in models))
    if any(not 1 <= len(name) <= LONGEST_MODEL_ID for name in names):
        raise Invalid(_("A model id has 1 to 300 characters."), field="allowed_models")
    return names


def _checked_expiry(moment: datetime | None) -> datetime | None:
    if moment is not None and moment <= timezone.now():
        raise Invalid(_("The expiry must be in the future."), field="expires_at")
    return moment
