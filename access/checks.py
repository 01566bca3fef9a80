"""System checks of what an operator sets about people. Ids are `llmlb.access.E001` and on."""

from __future__ import annotations

from typing import Any, Final

from django.conf import settings
from django.core import checks
from django.core.exceptions import ValidationError

from access.models import username_validator

SHORTEST_PASSWORD: Final = 8


@checks.register
def check_first_administrator(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """The first administrator's name and password can be used."""
    found: list[checks.CheckMessage] = []
    try:
        username_validator(settings.LLMLB.admin_username)
    except ValidationError as error:
        found.append(
            checks.Error(
                f"LLMLB_ADMIN_USERNAME={settings.LLMLB.admin_username} is no user name.",
                hint=error.messages[0],
                id="llmlb.access.E001",
            )
        )
    password = settings.LLMLB.admin_password
    if password is not None and len(password) < SHORTEST_PASSWORD:
        found.append(
            checks.Error(
                f"LLMLB_ADMIN_PASSWORD has {len(password)} characters.",
                hint=f"Give it {SHORTEST_PASSWORD} or more, or leave it unset: one is made and printed once.",
                id="llmlb.access.E002",
            )
        )
    return found
