"""What asgi.py needs of the dashboard: its WebSocket routes, and the hints to start beside the server."""

from __future__ import annotations

from typing import Any, Final

from django.urls import path

from llmlb_site.dashboard.consumers import DashboardConsumer
from llmlb_site.dashboard.context import LIVE_PATH
from llmlb_site.dashboard.hints import Hints

__all__ = ["Hints", "websocket_urlpatterns"]

websocket_urlpatterns: Final[list[Any]] = [path(LIVE_PATH.removeprefix("/"), DashboardConsumer.as_asgi())]
