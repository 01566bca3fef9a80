"""System checks of what the environment says of cloud providers."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core import checks

from llmlb_site.lib.config import CLOUD_VARIABLES
from llmlb_site.lib.node_addresses import BadBaseUrl
from models_catalog.providers import normalise_provider_url


@checks.register
def check_provider_addresses(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """The base URLs of cloud providers can be used."""
    found: list[checks.CheckMessage] = []
    for name, access in settings.CLOUD.items():
        variable = CLOUD_VARIABLES[name][1]
        try:
            if access.base_url:
                normalise_provider_url(name, access.base_url)
        except BadBaseUrl as error:
            found.append(checks.Error(f"{variable} cannot be used.", hint=str(error), id="llmlb.models_catalog.E001"))
    return found
