"""The llmlb of this machine, from its database, with as little of Django as that takes: it is to answer in no time."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from llmlb_site.serve.cli.source import Row
from nodes.runtime.cli.failures import NotReachable

if TYPE_CHECKING:
    from access.models import ApiKey
    from nodes.models import Node

# Whose models are read. The rest (admin, REST framework, dashboard, Daphne) takes longer to import than the reading.
APPS: Final = (
    "llmlb_site.lib",
    "access",
    "nodes",
    "models_catalog",
    "history",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
)


class Local:
    def __init__(self) -> None:
        _set_up()

    def state(self) -> Row:
        import httpx
        from django.conf import settings

        from llmlb_site import __version__
        from llmlb_site.serve.listener import base_url

        url = base_url(settings.LLMLB.host, settings.LLMLB.port)
        try:
            state = httpx.get(f"{url}/readyz", timeout=3.0, trust_env=False).json()["status"]
        except httpx.ConnectError:
            state = "not running"
        except (httpx.HTTPError, ValueError, KeyError):
            state = "not answering"
        return {"state": state, "url": url, "version": __version__}

    def nodes(self) -> list[Row]:
        from nodes.queries import nodes_with_models

        return [_node(node) for node in _read(lambda: list(nodes_with_models()))]

    def keys(self) -> list[Row]:
        from access.queries import all_keys

        return [_key(key) for key in _read(lambda: list(all_keys().order_by("-id")))]


def _set_up() -> None:
    from django.apps import apps
    from django.conf import settings

    if apps.ready:  # called from a process that has Django already
        return
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmlb_site.settings")
    settings.INSTALLED_APPS = list(APPS)
    settings.LOGGING_CONFIG = None
    import django

    django.setup()


def _read(query: Any) -> Any:
    """Raises: NotReachable, where there is no database, or one of another version."""
    from django.db import DatabaseError

    try:
        return query()
    except DatabaseError as error:
        raise NotReachable("there is no database of this version yet: `manage.py serve` makes it") from error


def _node(node: Node) -> Row:
    models = list(node.models.all())
    return {
        "id": node.pk,
        "name": node.name,
        "base_url": node.base_url,
        "status": node.status,
        "enabled": node.enabled,
        "draining": node.draining,
        "node_type": node.node_type,
        "gpu_backend": node.gpu_backend,
        "concurrency_limit": node.concurrency_limit,
        "latency_ms": node.latency_ms,
        "last_seen": node.last_seen and node.last_seen.isoformat(),
        "last_error": node.last_error,
        "executable_models": [model.model_id for model in models],
        "excluded_models": [
            {"model": model.model_id, "reason": model.excluded_reason} for model in models if model.is_excluded
        ],
    }


def _key(key: ApiKey) -> Row:
    return {
        "id": key.pk,
        "name": key.name,
        "key_prefix": key.prefix,
        "owner": {"id": key.owner_id, "username": key.owner.username},
        "state": key.state,
        "permissions": [str(permission) for permission in key.permissions],
        "expires_at": key.expires_at and key.expires_at.isoformat(),
        "last_used_at": key.last_used_at and key.last_used_at.isoformat(),
    }
