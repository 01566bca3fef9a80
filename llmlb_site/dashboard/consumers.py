"""The WebSocket of an open dashboard: authenticated by the session cookie alone, from our own pages alone."""

from __future__ import annotations

from http.cookies import CookieError, SimpleCookie
from importlib import import_module
from typing import Any, Final
from urllib.parse import urlsplit

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from django.conf import settings
from django.contrib import auth
from django.http import HttpRequest

from access.models import User
from llmlb_site.dashboard.hints import forget, listen

CLOSE_SIGNED_OUT: Final = 4401


class DashboardConsumer(AsyncJsonWebsocketConsumer):  # type: ignore[misc]  # channels has no types
    """Says `{"type": "connected"}`, then `{"topic": "nodes", "rev": 42}` whenever there is something to fetch.

    What the browser sends is ignored. A person who signed out, was deactivated or got a new password is noticed at
    the next hint, and the socket closed.
    """

    session_key = ""

    async def connect(self) -> None:
        self.session_key = _session_key(self.scope)
        if not _same_origin(self.scope) or not await database_sync_to_async(may_look)(self.session_key):
            await self.close()
            return
        await self.accept()
        await self.send_json({"type": "connected"})
        listen(self)

    async def disconnect(self, code: int) -> None:
        forget(self)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None, **_: Any) -> None:
        """Nothing that a page could send means anything."""

    async def tell(self, news: dict[str, int]) -> None:
        """Send one hint a topic, unless the person may no longer look."""
        if not await database_sync_to_async(may_look)(self.session_key):
            forget(self)
            await self.close(code=CLOSE_SIGNED_OUT)
            return
        for topic, revision in news.items():
            await self.send_json({"topic": topic, "rev": revision})


def may_look(session_key: str) -> bool:
    """Whether that session is of an active person who has nothing else to do first."""
    if not session_key:
        return False
    request = HttpRequest()
    request.session = import_module(settings.SESSION_ENGINE).SessionStore(session_key)
    user = auth.get_user(request)
    return isinstance(user, User) and user.is_active and not user.must_change_password


def _header(scope: dict[str, Any], wanted: bytes) -> str:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == wanted), "")


def _session_key(scope: dict[str, Any]) -> str:
    try:
        cookie = SimpleCookie(_header(scope, b"cookie")).get(settings.SESSION_COOKIE_NAME)
    except CookieError:
        return ""
    return cookie.value if cookie else ""


def _same_origin(scope: dict[str, Any]) -> bool:
    """Whether a page of ours opened it. Browsers always say the origin; behind a proxy it may be a trusted one."""
    origin = _header(scope, b"origin")
    return urlsplit(origin).netloc == _header(scope, b"host") != "" or origin in settings.CSRF_TRUSTED_ORIGINS
