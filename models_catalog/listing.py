"""The providers' model lists: asked for once a day, kept in the database, served stale while a provider is down."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from llmlb_site.lib.events import publish
from models_catalog.models import CloudProvider
from models_catalog.providers import ANTHROPIC_VERSION, PROVIDERS, Listed, read_list
from models_catalog.queries import ProviderState, provider_state, provider_states
from nodes.background import background
from nodes.client import CallFailed, Reply, Target, call

KEEP: Final = timedelta(hours=24)
RETRY: Final = timedelta(minutes=5)
TIMEOUT_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Listing:
    """What came of asking a provider for its models: them, or an error that names neither key nor address."""

    models: list[Listed] | None
    error: str = ""


def refresh_due() -> int:
    """Start asking every configured provider whose list is due, and return at once. Returns: how many."""
    now = timezone.now()
    due = [state for state in provider_states() if state.configured and is_due(state, now)]
    claimed = [state for state in due if _claim(state, now)]
    for state in claimed:
        background().submit(_refresh, state)
    return len(claimed)


def is_due(state: ProviderState, now: datetime) -> bool:
    """Never asked (also after its key was changed), or the list is a day old and the last try some minutes."""
    if state.last_checked is None:
        return True
    stale = state.models_at is None or now - state.models_at >= KEEP
    return stale and now - state.last_checked >= RETRY


def list_now(states: Iterable[ProviderState]) -> dict[str, Listing]:
    """Ask these providers at the same time, and keep what each answers. Returns: by name."""
    asked = list(states)
    listings = asyncio.run(_list_all(asked))
    for state, listing in zip(asked, listings, strict=True):
        record_listing(state, listing)
    return {state.name: listing for state, listing in zip(asked, listings, strict=True)}


async def list_models(state: ProviderState) -> Listing:
    """Ask one provider."""
    provider = PROVIDERS[state.name]
    headers = provider.auth(state.api_key)
    if state.name == "anthropic":
        headers += (("anthropic-version", ANTHROPIC_VERSION),)
    try:
        reply = await call(Target(state.base_url, headers=headers), provider.list_path, timeout=TIMEOUT_SECONDS)
    except CallFailed as failure:
        return Listing(None, _("It %(reason)s.") % {"reason": failure})
    models = read_list(state.name, reply.document)
    return Listing(models) if models is not None else Listing(None, _reason(reply))


def record_listing(state: ProviderState, listing: Listing) -> None:
    """Keep a provider's answer, unless its key or address was changed meanwhile. A failure keeps the last good list."""
    with transaction.atomic():
        row = CloudProvider.objects.select_for_update().filter(name=state.name).first() or CloudProvider(
            name=state.name
        )
        now_set = provider_state(row.name, row)
        if (now_set.api_key, now_set.base_url) != (state.api_key, state.base_url):
            return
        row.last_checked = timezone.now()
        row.last_error = listing.error[:300]
        changed = listing.models is not None and listing.models != row.model_list
        if listing.models is not None:
            row.model_list, row.models_at = listing.models, row.last_checked
        row.save()
        if changed:
            publish("models", {"provider": row.name})


async def _refresh(state: ProviderState) -> None:
    listing = await list_models(state)
    await background().write(record_listing, state, listing)


async def _list_all(states: list[ProviderState]) -> list[Listing]:
    return await asyncio.gather(*(list_models(state) for state in states))


def _claim(state: ProviderState, now: datetime) -> bool:
    """Of several workers one asks."""
    CloudProvider.objects.get_or_create(name=state.name)
    mine = CloudProvider.objects.filter(name=state.name, last_checked=state.last_checked)
    return mine.update(last_checked=now) == 1


def _reason(reply: Reply) -> str:
    if reply.status in (401, 403):
        return _("It does not accept the key (status %d).") % reply.status
    if reply.status != 200:
        return _("It answered with status %d.") % reply.status
    return _("Its answer is not a list of models.")
