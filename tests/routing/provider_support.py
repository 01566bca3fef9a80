"""A gateway with cloud providers, each a fake one on a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from llmlb_site.lib.events import publish
from models_catalog.models import CloudProvider
from models_catalog.providers import read_list
from tests.routing.conftest import Fleet
from tests.support.fake_provider import KEY, LISTS, FakeProvider


class Cloud:
    """The fleet, and the providers that it is connected to, by name."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.providers: dict[str, FakeProvider] = {}

    async def add(self, name: str, **row: Any) -> FakeProvider:
        """Start a provider, and configure it with its key and its list of models."""
        fake = self.providers[name] = FakeProvider(name)
        await fake.start()
        values = {"api_key": KEY, "base_url": fake.url, "model_list": read_list(name, LISTS[name]), **row}
        await CloudProvider.objects.acreate(name=name, **values)
        await sync_to_async(publish)("models")
        await self.fleet.engine.control.catch_up(timeout=5)
        return fake

    async def stop(self) -> None:
        for fake in self.providers.values():
            await fake.stop()


@pytest.fixture
async def cloud(fleet: Fleet) -> AsyncIterator[Cloud]:
    made = Cloud(fleet)
    yield made
    await made.stop()
