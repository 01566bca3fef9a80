"""People, their sign-in tokens, API keys, and what was done by whom."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, ClassVar

from django.conf import settings
from django.contrib.auth.models import AbstractUser, UserManager
from django.core.validators import RegexValidator
from django.db import models
from django.db.models.functions import Lower
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from access import keys
from access.permissions import ROLE_PERMISSIONS, Permission, Role

username_validator = RegexValidator(
    r"^[a-zA-Z0-9_]{3,50}\Z", _("A user name has 3 to 50 letters, digits or underscores.")
)


class AccountManager(UserManager["User"]):
    def create_superuser(self, username: str, *args: Any, **fields: Any) -> User:
        return super().create_superuser(username, *args, **{**fields, "role": Role.ADMINISTRATOR})


class User(AbstractUser):
    """A person. What they may do follows from `role` alone; Django's own flags are derived from it."""

    username = models.CharField(_("user name"), max_length=50, unique=True, validators=[username_validator])
    role = models.CharField(_("role"), max_length=16, choices=Role.choices, default=Role.VIEWER)
    must_change_password = models.BooleanField(
        _("must change password"),
        default=False,
        help_text=_("Can do nothing else until the password is changed."),
    )

    objects: ClassVar[AccountManager] = AccountManager()

    class Meta(AbstractUser.Meta):
        constraints = [
            models.CheckConstraint(condition=models.Q(role__in=Role.values), name="user_role_known"),
            # `admin` and `Admin` would be two people whom nobody can tell apart.
            models.UniqueConstraint(Lower("username"), name="user_name_once_in_any_case"),
        ]

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.is_staff = self.as_role.includes(Role.OPERATOR)
        self.is_superuser = self.as_role is Role.ADMINISTRATOR
        fields = kwargs.get("update_fields")
        if fields is not None and "role" in fields:
            kwargs["update_fields"] = {*fields, "is_staff", "is_superuser"}
        super().save(*args, **kwargs)

    @property
    def as_role(self) -> Role:
        return Role(self.role)

    @property
    def granted(self) -> frozenset[Permission]:
        """What this person may do now, and the most that a key of theirs may do."""
        return ROLE_PERMISSIONS[self.as_role] if self.is_active else frozenset()

    def may(self, permission: Permission) -> bool:
        return permission in self.granted


def effective_permissions(listed: Iterable[str], owner: User) -> frozenset[Permission]:
    """The permissions that a key lists, as far as its owner has them."""
    wanted = frozenset(listed)
    return frozenset(permission for permission in owner.granted if permission in wanted)


class Credential(models.Model):
    """A random secret that was shown once: a public id to look it up by, and a keyed hash of the rest."""

    public_id = models.CharField(max_length=16, unique=True, editable=False)
    digest = models.BinaryField(max_length=32, editable=False)
    created_at = models.DateTimeField(_("created"), default=timezone.now, editable=False)
    expires_at = models.DateTimeField(_("expires"), null=True, blank=True)
    revoked_at = models.DateTimeField(_("revoked"), null=True, blank=True, editable=False)
    last_used_at = models.DateTimeField(_("last used"), null=True, blank=True, editable=False)

    class Meta:
        abstract = True

    def is_live(self, now: datetime | None = None) -> bool:
        moment = now or timezone.now()
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > moment)


class ApiKey(Credential):
    """What an API consumer authenticates with: `sk_`, twelve characters of public id, thirty-two of secret."""

    name = models.CharField(_("name"), max_length=100)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, verbose_name=_("owner"), on_delete=models.CASCADE, related_name="api_keys"
    )
    enabled = models.BooleanField(_("enabled"), default=True)
    permissions = models.JSONField(_("permissions"), default=list)
    allowed_models = models.JSONField(
        _("allowed models"), default=list, blank=True, help_text=_("Model ids it may use; empty means all.")
    )

    class Meta:
        verbose_name = _("API key")
        verbose_name_plural = _("API keys")
        ordering = ["-id"]
        constraints = [
            # A revoked key gives its name free, so that a key can be replaced by one of the same name.
            models.UniqueConstraint(
                fields=["owner", "name"], condition=models.Q(revoked_at=None), name="api_key_name_per_owner"
            )
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"

    @property
    def prefix(self) -> str:
        """The part of the key that may be shown."""
        return keys.shown(self.public_id)

    @property
    def effective_permissions(self) -> frozenset[Permission]:
        """What it may do now: never more than its owner, so that a demotion takes effect with the next request."""
        return effective_permissions(self.permissions, self.owner)

    @property
    def has_every_permission(self) -> bool:
        return set(Permission.values) <= set(self.permissions)

    @property
    def state(self) -> str:
        if self.revoked_at is not None:
            return "revoked"
        if not self.is_live():
            return "expired"
        return "active" if self.enabled and self.owner.is_active else "disabled"


class KeyLimit(models.Model):
    """How much a key may use, over all models or of one. What is empty is not limited."""

    key = models.ForeignKey(ApiKey, verbose_name=_("API key"), on_delete=models.CASCADE, related_name="limits")
    model = models.CharField(_("model"), max_length=300, blank=True, help_text=_("Empty: over all models together."))
    requests_per_minute = models.PositiveBigIntegerField(_("requests per minute"), null=True, blank=True)
    tokens_per_minute = models.PositiveBigIntegerField(_("tokens per minute"), null=True, blank=True)
    concurrent_requests = models.PositiveBigIntegerField(_("requests at once"), null=True, blank=True)
    tokens_per_day = models.PositiveBigIntegerField(_("tokens per day"), null=True, blank=True)
    tokens_per_month = models.PositiveBigIntegerField(_("tokens per month"), null=True, blank=True)

    class Meta:
        verbose_name = _("limit")
        verbose_name_plural = _("limits")
        ordering = ["model"]
        constraints = [models.UniqueConstraint(fields=["key", "model"], name="key_limit_once_per_model")]

    def __str__(self) -> str:
        return f"{self.key} {self.model}".rstrip()


class SignInToken(Credential):
    """What `POST /api/auth/login` gives: a Bearer token for `/api/*` that can be revoked and dies with the user."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="sign_in_tokens")

    class Meta:
        verbose_name = _("sign-in token")
        verbose_name_plural = _("sign-in tokens")

    def __str__(self) -> str:
        return f"{self.user} {self.created_at:%Y-%m-%d %H:%M}"


class AuditEvent(models.Model):
    """One thing that was done: who, what, to what, from where. Written by `access.audit.record`, never changed."""

    at = models.DateTimeField(_("time"), default=timezone.now, db_index=True)
    actor_kind = models.CharField(
        _("actor kind"),
        max_length=8,
        choices=[("user", _("user")), ("key", _("API key")), ("system", _("system"))],
    )
    actor = models.CharField(_("actor"), max_length=120)
    action = models.CharField(_("action"), max_length=60, db_index=True)
    target = models.CharField(_("target"), max_length=250, blank=True)
    details = models.JSONField(_("details"), default=dict, blank=True)
    ip = models.GenericIPAddressField(_("address"), null=True, blank=True)

    class Meta:
        verbose_name = _("audit event")
        verbose_name_plural = _("audit events")
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M:%S} {self.actor} {self.action} {self.target}"
