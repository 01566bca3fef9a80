"""The gateway before fake nodes, as the gateway's own tests have it."""

from __future__ import annotations

from tests.routing.conftest import fleet, make_fleet, pytest_asyncio_loop_factories

__all__ = ["fleet", "make_fleet", "pytest_asyncio_loop_factories"]
