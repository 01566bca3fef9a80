"""Who did what, to what, from where: one row for each thing done, written in the transaction that does it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Self

if TYPE_CHECKING:
    from access.models import ApiKey, User

ActorKind = Literal["user", "key", "system"]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who is acting, under the name that the audit keeps when the user or key is gone."""

    kind: ActorKind
    label: str
    ip: str | None = None

    @classmethod
    def user(cls, user: User, ip: str | None = None) -> Self:
        return cls("user", user.username, ip)

    @classmethod
    def key(cls, api_key: ApiKey, ip: str | None = None) -> Self:
        return cls("key", str(api_key), ip)


SYSTEM: Final = Actor("system", "llmlb")


def record(action: str, *, actor: Actor, target: str = "", details: Mapping[str, Any] | None = None) -> None:
    """Keep that `actor` did `action` (`key.mint`, `node.drain`, …) to `target`.

    `details` is JSON and holds no secret. Called inside the transaction of what was done: both are kept or neither.
    """
    from access.models import AuditEvent

    AuditEvent.objects.create(
        actor_kind=actor.kind,
        actor=actor.label[:120],
        action=action,
        target=target[:250],
        details=dict(details or {}),
        ip=actor.ip or None,
    )
