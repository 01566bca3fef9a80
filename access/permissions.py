"""Who may do what: eleven permissions for API keys, three roles for people (SPEC-7c0a37e0, SPEC-d4eb8796)."""

from __future__ import annotations

from typing import Final

from django.db import models
from django.utils.translation import gettext_lazy as _


class Permission(models.TextChoices):
    """What an API key may do. A key without a permission may do nothing: there is no implied one."""

    INFERENCE = "openai.inference", _("Use the inference API")
    MODELS_READ = "openai.models.read", _("List the models it may use")
    ENDPOINTS_READ = "endpoints.read", _("Read nodes")
    ENDPOINTS_MANAGE = "endpoints.manage", _("Register, change and remove nodes")
    API_KEYS_MANAGE = "api_keys.manage", _("Manage everyone's API keys")
    USERS_MANAGE = "users.manage", _("Manage users")
    INVITATIONS_MANAGE = "invitations.manage", _("Manage invitations")
    MODELS_MANAGE = "models.manage", _("Register and remove catalogue models")
    REGISTRY_READ = "registry.read", _("Read the catalogue and its manifests")
    LOGS_READ = "logs.read", _("Read history and logs")
    METRICS_READ = "metrics.read", _("Read metrics")


class Role(models.TextChoices):
    """What a person may do. Each role may do all that the next one may."""

    ADMINISTRATOR = "administrator", _("Administrator")
    OPERATOR = "operator", _("Operator")
    VIEWER = "viewer", _("Viewer")

    @classmethod
    def parse(cls, text: str) -> Role:
        """The role of that name; upstream's `admin` means administrator. Raises: ValueError."""
        return cls.ADMINISTRATOR if text == "admin" else cls(text)

    def includes(self, other: Role) -> bool:
        return _RANK[self] >= _RANK[other]


_RANK: Final = {Role.VIEWER: 0, Role.OPERATOR: 1, Role.ADMINISTRATOR: 2}

_VIEWER: Final = frozenset(
    {Permission.ENDPOINTS_READ, Permission.MODELS_READ, Permission.INFERENCE, Permission.METRICS_READ}
)
_OPERATOR: Final = _VIEWER | {
    Permission.ENDPOINTS_MANAGE,
    Permission.MODELS_MANAGE,
    Permission.REGISTRY_READ,
    Permission.LOGS_READ,
}

# What a signed-in person may do by their role, and the most that a key of theirs may be given.
ROLE_PERMISSIONS: Final[dict[Role, frozenset[Permission]]] = {
    Role.VIEWER: _VIEWER,
    Role.OPERATOR: _OPERATOR,
    Role.ADMINISTRATOR: frozenset(Permission),
}
