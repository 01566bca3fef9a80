"""What an empty installation gets: its first administrator, and the key that automation asked for."""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from access import keys
from access.audit import SYSTEM
from access.models import ApiKey, User
from access.permissions import Permission, Role
from access.queries import active_administrators
from access.refusals import Conflict, Refusal
from access.services.keys import mint_api_key
from access.services.people import create_user

BOOTSTRAP_NAME = "bootstrap"


@dataclass(frozen=True, slots=True)
class FirstAdmin:
    """The administrator that was just created. `generated_password` is to be printed once; None if it was given."""

    username: str
    generated_password: str | None


def ensure_first_admin() -> FirstAdmin | None:
    """Create an administrator if there is none. Returns None if there was one.

    Raises:
        ImproperlyConfigured: LLMLB_ADMIN_USERNAME is no user name.
    """
    if User.objects.filter(role=Role.ADMINISTRATOR).exists():
        return None
    given = settings.LLMLB.admin_password
    try:
        user, password = create_user(
            username=settings.LLMLB.admin_username, role=Role.ADMINISTRATOR, password=given, actor=SYSTEM
        )
    except Conflict:  # another process was first, or it is the name of someone with another role
        return None
    except Refusal as error:
        raise ImproperlyConfigured(f"LLMLB_ADMIN_USERNAME={settings.LLMLB.admin_username}: {error}") from error
    return FirstAdmin(user.username, None if given else password)


def ensure_bootstrap_key() -> ApiKey | None:
    """Make LLMLB_BOOTSTRAP_API_KEY a key with every permission, of the first administrator. None if it was there.

    A key that was revoked stays revoked, though the variable is still set.

    Raises:
        ImproperlyConfigured: the value cannot be sent in a header.
    """
    text = settings.LLMLB.bootstrap_api_key
    owner = active_administrators().order_by("pk").first()
    if not text or owner is None:
        return None
    parts = keys.split(text)
    if parts is None or not text.isascii() or not text.isprintable() or " " in text:
        raise ImproperlyConfigured("LLMLB_BOOTSTRAP_API_KEY: must be 32 to 512 printable ASCII characters, no spaces.")
    if ApiKey.objects.filter(public_id=parts[0]).exists():
        return None
    taken = ApiKey.objects.filter(owner=owner, name=BOOTSTRAP_NAME, revoked_at=None).exists()
    minted = keys.MintedKey(text, parts[0], keys.digest(parts[1]))
    key, _ = mint_api_key(
        owner=owner,
        name=f"{BOOTSTRAP_NAME} {parts[0]}" if taken else BOOTSTRAP_NAME,
        permissions=Permission.values,
        minted=minted,
        actor=SYSTEM,
    )
    return key
