"""People: create, change, remove; and whatever lets them in ends when it must."""

from __future__ import annotations

from typing import Final

from django.contrib.auth import password_validation
from django.contrib.sessions.models import Session
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from access.audit import Actor, record
from access.models import SignInToken, User
from access.permissions import Role
from access.refusals import Conflict, Invalid, LastAdministrator
from access.services.sign_in import confirm_password
from llmlb_site.lib.crypto import random_base62
from llmlb_site.lib.events import publish

GENERATED_LENGTH: Final = 16


def create_user(*, username: str, role: str, actor: Actor, password: str | None = None) -> tuple[User, str]:
    """A new person and their password. One that was generated is to be shown once and changed at first sign-in.

    Raises:
        Invalid: the user name or the role cannot be used.
        Conflict: the user name is taken.
    """
    user = User(username=username.strip(), role=_checked_role(role), must_change_password=password is None)
    secret = password if password is not None else random_base62(GENERATED_LENGTH)
    user.set_password(secret)
    with transaction.atomic():
        _save(user)
        record("user.create", actor=actor, target=user.username, details={"role": user.role})
    return user, secret


def update_user(
    user: User, *, actor: Actor, username: str | None = None, role: str | None = None, is_active: bool | None = None
) -> User:
    """Change what is given. Whoever is demoted or deactivated is signed out everywhere at once; their keys shrink or
    die with the next request.

    Raises:
        Invalid, Conflict: as when creating.
        LastAdministrator: nobody could administer any more.
    """
    with transaction.atomic():
        before = User.objects.select_for_update().get(pk=user.pk)
        user.username = before.username if username is None else username.strip()
        user.role = before.role if role is None else _checked_role(role)
        user.is_active = before.is_active if is_active is None else is_active
        if before.granted - user.granted:
            _keep_an_administrator(before, remains=user.is_active and user.as_role is Role.ADMINISTRATOR)
            end_sign_ins(user)
        fields = ("username", "role", "is_active")
        changed = {field: getattr(user, field) for field in fields if getattr(before, field) != getattr(user, field)}
        if changed:
            _save(user, [*changed])
            record("user.update", actor=actor, target=before.username, details=changed)
            publish("keys")
    return user


def reset_password(user: User, *, actor: Actor) -> str:
    """A new password for someone who lost theirs: to be shown once, and changed at the next sign-in."""
    secret = random_base62(GENERATED_LENGTH)
    with transaction.atomic():
        _set_password(user, secret, must_change=True)
        end_sign_ins(user)
        record("user.reset_password", actor=actor, target=user.username)
    return secret


def change_password(user: User, *, current: str, new: str, actor: Actor, keep_token: SignInToken | None = None) -> None:
    """The person's own change. Their other sessions end (a session knows the password's hash), and their other tokens.

    Raises:
        Invalid: the current password is wrong, or the new one is too weak or the same.
        TooMany: the current password was wrong too often of late.
    """
    confirm_password(user, current, ip=actor.ip or "")
    if new == current:
        raise Invalid(_("The new password is the old one."), field="new_password")
    try:
        password_validation.validate_password(new, user)
    except ValidationError as error:
        raise Invalid(" ".join(error.messages), field="new_password") from error
    with transaction.atomic():
        _set_password(user, new, must_change=False)
        _revoke_tokens(user, keep_token)
        record("user.change_password", actor=actor, target=user.username)


def delete_user(user: User, *, actor: Actor) -> None:
    """Remove a person with their keys, tokens and sessions. History keeps the names.

    Raises:
        LastAdministrator: nobody could administer any more.
    """
    with transaction.atomic():
        _keep_an_administrator(user, remains=False)
        end_sign_ins(user)
        record("user.delete", actor=actor, target=user.username)
        user.delete()
        publish("keys")


def sign_out_everywhere(user: User, *, actor: Actor) -> None:
    """End every session and token of someone who stays who they are."""
    with transaction.atomic():
        end_sign_ins(user)
        record("user.sign_out_everywhere", actor=actor, target=user.username)


def end_sign_ins(user: User) -> None:
    """End every session and every sign-in token of a person."""
    of_user = [
        session.session_key
        for session in Session.objects.filter(expire_date__gt=timezone.now()).iterator()
        if session.get_decoded().get("_auth_user_id") == str(user.pk)
    ]
    Session.objects.filter(session_key__in=of_user).delete()
    _revoke_tokens(user, keep=None)


def _revoke_tokens(user: User, keep: SignInToken | None) -> None:
    tokens = SignInToken.objects.filter(user=user, revoked_at=None)
    if keep is not None:
        tokens = tokens.exclude(pk=keep.pk)
    tokens.update(revoked_at=timezone.now())


def _set_password(user: User, password: str, *, must_change: bool) -> None:
    user.set_password(password)
    user.must_change_password = must_change
    user.save(update_fields=["password", "must_change_password"])


def _keep_an_administrator(user: User, *, remains: bool) -> None:
    # All of them locked: two administrators who remove each other at the same moment must not both succeed.
    administrators = set(
        User.objects.select_for_update()
        .filter(role=Role.ADMINISTRATOR, is_active=True)
        .order_by("pk")
        .values_list("pk", flat=True)
    )
    if not remains and administrators == {user.pk}:
        raise LastAdministrator


def _checked_role(text: str) -> Role:
    try:
        return Role.parse(text)
    except ValueError as error:
        raise Invalid(_("The role is administrator, operator or viewer."), field="role") from error


def _save(user: User, changed: list[str] | None = None) -> None:
    if User.objects.filter(username__iexact=user.username).exclude(pk=user.pk).exists():
        raise _name_taken()
    try:
        user.clean_fields(exclude=["password"])
    except ValidationError as error:
        raise Invalid(" ".join(error.messages), field=next(iter(error.message_dict))) from error
    try:
        with transaction.atomic():
            user.save(update_fields=changed)
    except IntegrityError as error:  # another request was first
        raise _name_taken() from error


def _name_taken() -> Conflict:
    return Conflict(_("There is already a user of this name."), code="duplicate_username", field="username")
