"""What asgi.py needs of the dashboard: its WebSocket routes, and the hints to start beside the server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from django.urls import path, re_path

from llmlb_site.dashboard.consumers import DashboardConsumer
from llmlb_site.dashboard.context import LIVE_PATH
from llmlb_site.dashboard.hints import Hints

__all__ = ["Hints", "websocket_urlpatterns"]


async def refuse(scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
    """A WebSocket to an address that has none. Without a route for it Channels would call that an error of ours."""
    await receive()
    await send({"type": "websocket.close"})


websocket_urlpatterns: Final[list[Any]] = [
    path(LIVE_PATH.removeprefix("/"), DashboardConsumer.as_asgi()),
    re_path("", refuse),  # type: ignore[arg-type]  # Channels takes applications where Django's router takes views
]
