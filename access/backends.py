"""Django's permissions, told from the role alone. There are no groups and no permissions of single people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from django.apps import apps
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import AnonymousUser, Permission

from access.models import User
from access.permissions import Role

# What an operator runs; and what an operator may look at. Bodies of requests are for administrators alone.
_CHANGED_BY_OPERATORS: Final = ("nodes", "models_catalog")
_SEEN_BY_OPERATORS: Final = (*_CHANGED_BY_OPERATORS, "history", "access")
_HIDDEN_FROM_OPERATORS: Final = frozenset({"history.view_requestpayload"})


class RoleBackend(ModelBackend):
    """Administrators may do everything, operators run the fleet and see the rest, viewers have no part in the admin."""

    def get_all_permissions(self, user_obj: User | AnonymousUser, obj: Any = None) -> set[str]:
        if not isinstance(user_obj, User) or not user_obj.is_active or obj is not None:
            return set()
        match user_obj.as_role:
            case Role.ADMINISTRATOR:
                return {f"{app}.{name}" for app, name in _every_permission()}
            case Role.OPERATOR:
                return set(_of_operators()) - _HIDDEN_FROM_OPERATORS
        return set()

    def get_user_permissions(self, user_obj: User | AnonymousUser, obj: Any = None) -> set[str]:
        return set()

    def get_group_permissions(self, user_obj: User | AnonymousUser, obj: Any = None) -> set[str]:
        return self.get_all_permissions(user_obj, obj)


def _every_permission() -> Iterator[tuple[str, str]]:
    yield from Permission.objects.values_list("content_type__app_label", "codename")


def _of_operators() -> Iterator[str]:
    for app in _SEEN_BY_OPERATORS:
        for model in apps.get_app_config(app).get_models():
            verbs = ("view", "add", "change", "delete") if app in _CHANGED_BY_OPERATORS else ("view",)
            yield from (f"{app}.{verb}_{model._meta.model_name}" for verb in verbs)
